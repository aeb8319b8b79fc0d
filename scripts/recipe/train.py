"""Training: every hyperparameter of the announcement, and each quirk of the original run as a switch."""

from itertools import pairwise
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from scripts.recipe.base import Count, Name, Positive, Ratio, Spec, Strict
from scripts.recipe.prompt_format import FormatName

Attention = Literal["sdpa", "flex_attention", "torch_varlen", "flash_attention_2", "flash_attention_3"]
"""Attention kernels that can be told where packed rows begin."""

CPU_ATTENTION = ("sdpa",)
"""Those that train without a GPU: flex_attention has no backward pass there."""

FP32_ATTENTION = ("sdpa", "flex_attention")
"""Those that compute in fp32; the others take 16 bits only."""


class Optimizer(Strict):
    """Names are the announcement's (axolotl's); Hugging Face's name in brackets where it differs."""

    learning_rate: Positive = 1.7e-5
    """Largest rate, reached after the warm-up."""
    lr_scheduler: Literal["cosine"] = "cosine"
    """After the warm-up the rate falls along half a cosine to 0 at the last step."""
    warmup_steps: Annotated[int, Field(ge=0)] = 32
    """Steps of the rise from 0."""
    lr_quadratic_warmup: bool = True
    """Rise with the square of the step: step s < warmup_steps has peak * (s / warmup_steps)^2."""
    adam_beta1: Ratio = 0.9
    """Decay of the mean of gradients."""
    adam_beta2: Ratio = 0.95
    """Decay of the mean of squared gradients."""
    adam_eps: Positive = 1e-9
    """[adam_epsilon] The original config said 1e-9 under a key that its code never read: 1e-8 ran."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled decay, per step and learning rate."""
    decay_norms: bool = False
    """Apply weight decay to norm weights too, as the original run did silently."""
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to this global norm."""
    loss_mean: Literal["token", "rank"] = "token"
    """`token`: mean over all labelled tokens of the global step; `rank`: mean of the ranks' means."""


class Numerics(Strict):
    """Precision, memory and kernels."""

    precision: Literal["fp32", "fp32_master", "pure_bf16"] = "fp32_master"
    """`fp32_master`: fp32 weights and Adam state, bf16 compute; `pure_bf16`: everything bf16, as the original."""
    tf32: bool = True
    """TensorFloat-32 in fp32 matrix products, on GPUs that have it."""
    gradient_checkpointing: bool = True
    """Recompute each layer in the backward pass instead of keeping its activations."""
    attention: Attention = "torch_varlen"
    """Kernel; every one keeps packed rows apart. `torch_varlen` is flash attention as torch ships it."""
    fsdp_offload_params: bool = False
    """Keep parameters and Adam state in host memory. The original did; 7B on 8x A40 and 13B on 8x H100 fit without."""
    out_dtype: Literal["float32", "bfloat16"] | None = None
    """Type of the published weights; unset, the type in which they were trained (fp32 for `fp32_master`)."""

    @field_validator("attention", mode="before")
    @classmethod
    def _isolating(cls, value: object) -> object:
        if value == "eager":
            raise ValueError(
                f"eager attention lets packed rows see each other; allowed: {', '.join(get_args(Attention))}"
            )
        return value

    @model_validator(mode="after")
    def _kernel_takes_type(self) -> Self:
        if self.precision == "fp32" and self.attention not in FP32_ATTENTION:
            text = f"attention {self.attention} computes in 16 bits only, precision is fp32"
            raise ValueError(f"{text}; allowed with it: {', '.join(FP32_ATTENTION)}")
        return self


class Levers(Strict):
    """What makes a step faster or smaller without changing what is computed, beyond the order of sums."""

    loss_chunk: Annotated[int, Field(ge=0)] = 1024
    """Tokens whose logits exist at one time; 0: all of a line (7.8 GiB at 32,768 tokens and 32,000 ids)."""
    checkpoint_policy: Literal["full", "selective"] = "full"
    """With gradient_checkpointing: `full` keeps a layer's input only; `selective` also every second matrix product
    and attention's result, and recomputes the rest."""
    compile_layers: bool = False
    """Compile each decoder layer (`torch.compile`)."""
    unsharded_last_layers: Annotated[int, Field(ge=0)] = 0
    """Last layers whose gathered weights are kept until their backward pass, which saves gathering them again."""
    prefetch_layers: Annotated[int, Field(ge=0)] = 0
    """Layers gathered ahead of the one that computes; 0: as FSDP does by itself, one."""
    gc_steps: Annotated[int, Field(ge=0)] = 50
    """Steps between Python's garbage collections, on all ranks at once; 0: whenever each process likes."""


class Cadence(Strict):
    """How often to evaluate, save and log, in optimizer steps."""

    eval_steps: Count = 64
    """Steps between evaluations of the held-out rows."""
    save_steps: Count = 256
    """Steps between checkpoints to resume from."""
    save_total_limit: Count = 50
    """Checkpoints to resume from that are kept while it runs; those of `keep_checkpoints` are not counted."""
    logging_steps: Count = 1
    """Steps between lines of `metrics.jsonl`."""
    final_ckpt: Literal["last", "best_eval"] = "last"
    """`best_eval`: publish the checkpoint of lowest evaluation loss, as the original stack did silently."""
    # Left out of every dump while empty, so that a recipe without it has the identity, and gives the bytes, of before.
    keep_checkpoints: Annotated[list[Count], Field(exclude_if=lambda steps: not steps)] = []
    """Steps after which the weights are kept in the artifact too, each a whole model folder, such as `[200, 400]`:
    candidates of the blind test, as `MODEL@200`. The trained model itself stays the same."""

    @field_validator("keep_checkpoints")
    @classmethod
    def _rising(cls, steps: list[int]) -> list[int]:
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError(f"found {steps}; steps must rise, and each stands there once: {sorted(set(steps))}")
        return steps


class Launch(Strict):
    """Processes and devices; the schedule depends on nodes * processes_per_node, nothing else does."""

    device: Literal["cpu", "cuda"] = "cuda"
    """`cpu` is for the demo and for tests."""
    nodes: Count = 1
    """Machines."""
    processes_per_node: Count = 8
    """Processes on each machine: one a GPU."""
    threads_per_process: Count = 1
    """CPU threads of each process."""
    portable_cpu: bool = False
    """Pin ATen, oneDNN and MKL to AVX2 code paths, so that any x86-64 CPU gives the same bits (CPU only)."""

    @model_validator(mode="after")
    def _portable_alone(self) -> Self:
        # Under the pins MKL splits a product's sum among its threads (seen at 100 x 512 x 64 with 2 threads).
        if self.portable_cpu and self.device == "cpu" and self.threads_per_process > 1:
            found = f"found threads_per_process {self.threads_per_process}"
            raise ValueError(f"portable_cpu needs threads_per_process 1, {found}; use more processes_per_node instead")
        return self

    @property
    def processes(self) -> int:
        """World size."""
        return self.nodes * self.processes_per_node


Trackers = list[Literal["tensorboard", "wandb"]]
"""Programs that draw the curves while a training runs."""


class TrainSpec(Spec):
    """One fine-tune. Inputs: the base model, and the pack artifact of the same name."""

    model: Name
    base: Name
    optimizer: Optimizer = Optimizer()
    numerics: Numerics = Numerics()
    cadence: Cadence = Cadence()
    levers: Levers = Levers()
    launch: Launch = Launch()
    trackers: Trackers = ["tensorboard"]
    max_shard_bytes: Count = 5_000_000_000
    """Largest weight file written."""
    format: FormatName = "metharme"
    """Prompt format of the mixture; the trained model's chat template is that of this format."""
    seed: int

    @model_validator(mode="after")
    def _levers_fit(self) -> Self:
        if not self.levers.compile_layers:
            return self
        if self.launch.portable_cpu and self.launch.device == "cpu":
            raise ValueError("levers.compile_layers generates code for this machine's processor: not with portable_cpu")
        selective = self.numerics.gradient_checkpointing and self.levers.checkpoint_policy == "selective"
        if selective and self.numerics.attention != "torch_varlen":
            text = f"levers.checkpoint_policy selective inside compiled layers, attention {self.numerics.attention}"
            raise ValueError(f"{text}: the compiler can follow torch_varlen only; use it, or checkpoint_policy full")
        return self

    def identity(self) -> dict[str, object]:
        """Return all but where the curves are shown."""
        return self.model_dump(mode="json", exclude={"trackers"})
