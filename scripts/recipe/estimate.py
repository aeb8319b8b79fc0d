"""What a training will take, in closed form: memory, time, disk, energy, before anything is spent. No torch here.

`python -m scripts.train plan` puts the memory tracker's exact peak in place of `peak_bytes`; a dry run has no time for
that and shows this estimate (tests hold the two within 10 % of each other).
"""

import math
from dataclasses import dataclass

from scripts.recipe.gpus import Gpu
from scripts.recipe.pack import PackSettings
from scripts.recipe.shapes import ModelShape
from scripts.recipe.train import Cadence, Launch, Numerics

GIB = 2**30
ASSUMED_MFU = 0.40
"""Share of the bf16 peak that a step is assumed to reach; published bf16 runs of 7B and 13B have 0.40 to 0.58."""
FILLED = {"best_fit": 0.999, "consecutive": 0.965}
"""Filled share of the slots (measured on synthetic mixtures, docs/performance.md)."""
_HOST_GB_S = 150.0
"""Host memory bandwidth of a node that Adam's offloaded step has to itself (an estimate: 8 channels of DDR4)."""
_CHUNK = 1024
"""Tokens whose logits exist at once."""


@dataclass(frozen=True)
class Workload:
    """What is known of the data."""

    tokens: int | None
    """Training tokens of one epoch; None: not known before packing."""
    span: float
    """Mean causal span sum(length^2) / sum(length) of the rows, tokens; at most `sequence_len`."""
    validation_tokens: int = 0
    """Held-out tokens of one evaluation."""
    steps: int | None = None
    """Optimizer steps of the schedule where it exists; else they follow from `tokens`."""


@dataclass(frozen=True)
class Assumptions:
    """What no recipe says."""

    gpu: Gpu | None
    """None: neither time nor energy can be told."""
    mfu: float = ASSUMED_MFU
    price_per_gpu_hour: float | None = None


@dataclass(frozen=True)
class PlanFigures:
    """One training in figures; None where the data or the GPU are not known."""

    peak_bytes: int
    """Of one GPU, without the reserve for context and NCCL."""
    static_bytes: int
    """Weights, gradients and Adam's moments of one rank, in GPU or host memory: params * 16 B / ranks in fp32."""
    host_bytes: int
    """Host memory of one node for offloaded state."""
    flops_per_token: float
    tokens_per_step: int
    step_s: float | None
    steps: int | None
    train_tokens: int | None
    run_s: float | None
    """Steps and evaluations; without checkpoints, start and publication."""
    gpu_hours: float | None
    energy_kwh: float | None
    """Board power of all GPUs for the whole time; without host, network and cooling."""
    cost: float | None
    checkpoint_bytes: int
    """One checkpoint."""
    disk_bytes: int
    """Base, all checkpoints to resume from with the one being written, and the published weights with those of
    `keep_checkpoints`, which also stand among the former while it runs."""


def plan_figures(
    shape: ModelShape,
    settings: tuple[PackSettings, Numerics, Cadence, Launch],
    workload: Workload,
    assumed: Assumptions,
    peak_bytes: int | None = None,
) -> PlanFigures:
    """Return the figures of one training.

    Args:
        shape: architecture of the base.
        settings: the recipe's sections of this training.
        workload: tokens and rows as far as known.
        assumed: GPU, MFU, price.
        peak_bytes: the tracker's peak; None takes the closed form.
    """
    pack, numerics, cadence, launch = settings
    per_step = pack.sequence_len * pack.micro_batch_size * pack.gradient_accumulation_steps * launch.processes
    flops = flops_per_token(shape, workload.span)
    filled = FILLED[pack.packing]
    steps, tokens = workload.steps, None
    if workload.tokens is not None:
        tokens = workload.tokens * pack.num_epochs
        steps = steps or pack.num_epochs * max(1, math.ceil(workload.tokens / (per_step * filled)))
    step_s = run_s = None
    if assumed.gpu is not None:
        speed = assumed.gpu.bf16_tflops * 1e12 * assumed.mfu * launch.processes
        step_s = per_step * filled * flops / speed + _offload_s(shape, numerics, launch, assumed.gpu, pack)
        if steps is not None:
            evaluations = 1 + math.ceil(steps / cadence.eval_steps)
            run_s = steps * step_s + evaluations * workload.validation_tokens * flops / 3 / speed
    gpu_hours = run_s / 3600 * launch.processes if run_s is not None else None
    width = weight_bytes(numerics)
    checkpoint = 3 * width * shape.params
    kept = cadence.save_total_limit
    if steps is not None:
        kept = min(kept, math.ceil(steps / cadence.save_steps))
    wanted = len(cadence.keep_checkpoints)
    out = {"float32": 4, "bfloat16": 2, None: width}[numerics.out_dtype]
    static = 4 * width * shape.params // launch.processes
    watts = assumed.gpu.board_power_w if assumed.gpu is not None else 0
    price = assumed.price_per_gpu_hour
    return PlanFigures(
        peak_bytes=peak_bytes or closed_form_peak(shape, pack, numerics, launch.processes),
        static_bytes=static,
        host_bytes=static * launch.processes_per_node if numerics.fsdp_offload_params else 0,
        flops_per_token=flops,
        tokens_per_step=per_step,
        step_s=step_s,
        steps=steps,
        train_tokens=tokens,
        run_s=run_s,
        gpu_hours=gpu_hours,
        energy_kwh=gpu_hours * watts / 1000 if gpu_hours is not None else None,
        cost=gpu_hours * price if gpu_hours is not None and price is not None else None,
        checkpoint_bytes=checkpoint,
        disk_bytes=checkpoint * (kept + wanted + 1) + (out * (1 + wanted) + 2) * shape.params,
    )


def flops_per_token(shape: ModelShape, span: float) -> float:
    """Return forward and backward FLOPs a token, 6 (N - V D) + 6 L D S, recomputation not counted (as in MFU)."""
    layer = shape.layer_params - 2 * shape.hidden_size
    matrices = shape.num_hidden_layers * layer + shape.vocab_size * shape.hidden_size
    return 6.0 * matrices + 6.0 * shape.num_hidden_layers * shape.hidden_size * span


def weight_bytes(numerics: Numerics) -> int:
    """Return the bytes of one weight as the optimizer keeps it; each of Adam's moments has as many."""
    return 2 if numerics.precision == "pure_bf16" else 4


def closed_form_peak(shape: ModelShape, pack: PackSettings, numerics: Numerics, world: int) -> int:
    """Return the peak memory of one GPU in bytes: the largest of four moments of a step.

    They are: the loss; the backward pass of the last layer and of the first; the root's gradients at the end.
    Activations a token and layer, as transformers' Llama saves them: two norms (fp32 input, normalized, product), q, k,
    v and attention output, and four widths of the feed-forward block.
    """
    width = weight_bytes(numerics)
    compute = 2 if numerics.precision in ("fp32_master", "pure_bf16") else 4
    reduce = 2 if numerics.precision == "pure_bf16" else 4
    hidden, layers, tokens = shape.hidden_size, shape.num_hidden_layers, pack.sequence_len * pack.micro_batch_size
    line, inner = tokens * hidden * compute, tokens * shape.intermediate_size * compute
    norm = tokens * hidden * (4 + 2 * compute)
    layer = 2 * norm + 2 * line + 2 * tokens * shape.kv_size * compute + 4 * inner
    kept = line if numerics.gradient_checkpointing else layer
    head = shape.vocab_size * hidden
    one, root = shape.layer_params * compute, shape.outer_params * compute
    state = 3 * width * shape.params // world
    all_grads = width * shape.params // world
    early = all_grads if pack.gradient_accumulation_steps > 1 else 0
    logits = _CHUNK * shape.vocab_size * (8 + compute)
    loss = early + root + one + layers * kept + norm + line + head * (4 + compute) + logits
    # Two whole layers (this one and the next, fetched early), one's gradients on their way, and the head's gradient.
    moving = root + 2 * one + shape.layer_params * reduce + head * compute
    again = layer if numerics.gradient_checkpointing else 0
    last = early + width * shape.layer_params // world + moving + layers * kept + again + inner + 3 * line
    first = all_grads + moving + kept + again + inner + 3 * line
    end = all_grads + root + shape.outer_params * (compute + reduce) + shape.outer_params * reduce // world
    peak = max(loss, last, first, end)
    if numerics.fsdp_offload_params:
        grads = {loss: early, last: early, first: all_grads, end: all_grads}[peak]
        return peak - grads + 2 * width * max(shape.layer_params, shape.outer_params) // world
    return state + peak


def _offload_s(shape: ModelShape, numerics: Numerics, launch: Launch, gpu: Gpu, pack: PackSettings) -> float:
    """Return seconds a step that offloading adds, if nothing overlaps: copies over PCIe, and Adam on the host."""
    if not numerics.fsdp_offload_params:
        return 0.0
    shard = weight_bytes(numerics) * shape.params / launch.processes
    # Weights go to the card for the forward and the backward pass of each micro-batch, gradients come back.
    copies = 3 * pack.gradient_accumulation_steps * shard / (gpu.link_gb_s * 1e9)
    # Adam reads weight, gradient and two moments, and writes all but the gradient.
    return copies + 7 * shard * launch.processes_per_node / (_HOST_GB_S * 1e9)
