"""The base model as sharded parameters: every rank reads only its own rows of each tensor.

Shape suffixes: T tokens of one packed line, D hidden size, V vocabulary.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaRotaryEmbedding

from scripts.artifact.stage import StageError
from scripts.artifact.tensors import model_files, read_header
from scripts.recipe.train import Levers, Numerics
from scripts.train.attention import PACKED, Rows, require_isolation
from scripts.train.levers import set_prefetch, wrap_layers
from scripts.train.loss import summed_loss, token_losses
from scripts.train.reader import Line

# Old Llama files carry this buffer, which the code computes itself.
_COMPUTED = re.compile(r"\.rotary_emb\.inv_freq$")


class PackedLlama(LlamaForCausalLM):  # type: ignore[misc,no-untyped-call,unused-ignore]
    """Llama whose forward pass goes from one packed line to its loss; same parameters, same names."""

    kernel = "sdpa"
    """Attention kernel (`numerics.attention`)."""
    loss_chunk = 1024
    """Tokens whose logits exist at one time; 0: all."""

    def forward(self, line: Line, per_token: bool = False) -> Tensor:
        """Return the summed loss of a line (scalar), or with `per_token` each token's loss [T] without gradient."""
        rows = Rows.of(self.kernel, line.lengths, line.input_ids_T.device)
        # use_cache=False and no attention_mask: with either, transformers drops the row boundaries silently.
        output = self.model(
            input_ids=line.input_ids_T[None], position_ids=line.position_ids_T[None], use_cache=False, rows=rows
        )
        hidden_TD = output.last_hidden_state[0]
        loss = token_losses if per_token else summed_loss
        return loss(hidden_TD, self.lm_head.weight, line.targets_T, self.loss_chunk)


def weight_dtype(numerics: Numerics) -> torch.dtype:
    """Return the type in which weights and Adam's state are kept."""
    return torch.bfloat16 if numerics.precision == "pure_bf16" else torch.float32


def build_model(
    base: Path, config: dict[str, Any], numerics: Numerics, mesh: DeviceMesh, levers: Levers | None = None
) -> PackedLlama:
    """Return the base model, one FSDP2 group a decoder layer and one for the rest, on `mesh`.

    Args:
        base: local model folder with safetensors.
        config: its checked config.json.
        numerics: precision, attention, memory.
        mesh: one-dimensional mesh of all ranks; `cpu` (gloo) and `cuda` (nccl) take the same path.
        levers: what makes it faster or smaller.

    Raises:
        StageError: a tensor is missing, superfluous or of another shape, or the attention can't be had here.
    """
    # Before weights are read: a kernel that mixes documents is refused, not used.
    heads = int(config["num_attention_heads"])
    head_width = int(config["hidden_size"]) // heads
    require_isolation(numerics.attention, torch.device(mesh.device_type), _compute(numerics), heads, head_width)
    model = sharded_model(config, numerics, mesh, levers)
    materialize(model, numerics, mesh)
    _load(model, base, mesh)
    require_sharded(model, mesh, weight_dtype(numerics))
    return model


def sharded_model(
    config: dict[str, Any], numerics: Numerics, mesh: DeviceMesh, levers: Levers | None = None
) -> PackedLlama:
    """Return the model wrapped by FSDP2 on the meta device: no memory is taken yet (the plan starts here too)."""
    dtype, levers = weight_dtype(numerics), levers or Levers()
    with torch.device("meta"):
        model = PackedLlama(LlamaConfig(**config))
        nn.Module.to(model, dtype)
    model.kernel, model.loss_chunk = numerics.attention, levers.loss_chunk
    model.set_attn_implementation(PACKED)
    master = numerics.precision == "fp32_master"
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if master else None, reduce_dtype=torch.float32 if master else None
    )
    memory = CPUOffloadPolicy() if _offloads(numerics, mesh) else OffloadPolicy()
    layers = model.model.layers
    wrap_layers(layers, levers, checkpointing=numerics.gradient_checkpointing)
    for i, layer in enumerate(layers):
        kept = i >= len(layers) - levers.unsharded_last_layers
        fully_shard(layer, mesh=mesh, mp_policy=policy, offload_policy=memory, reshard_after_forward=not kept)
    fully_shard(model, mesh=mesh, mp_policy=policy, offload_policy=memory)
    set_prefetch(layers, levers.prefetch_layers)
    return model


def materialize(model: PackedLlama, numerics: Numerics, mesh: DeviceMesh) -> None:
    """Give a sharded model its memory (undefined weights) and make it ready to train."""
    model.to_empty(device="cpu" if _offloads(numerics, mesh) else mesh.device_type)
    # The only buffers are RoPE's frequencies, which to_empty left undefined; they stay fp32 whatever the weights are.
    model.model.rotary_emb = LlamaRotaryEmbedding(model.config).to(mesh.device_type)
    model.train()


def _compute(numerics: Numerics) -> torch.dtype:
    return torch.bfloat16 if numerics.precision == "fp32_master" else weight_dtype(numerics)


def _offloads(numerics: Numerics, mesh: DeviceMesh) -> bool:
    return numerics.fsdp_offload_params and mesh.device_type != "cpu"


def shard_of(parameter: nn.Parameter) -> Tensor:
    """Return this rank's rows of a sharded parameter; shares its memory."""
    assert isinstance(parameter, DTensor)
    return parameter.to_local()


def shard_rows(rows: int, rank: int, world: int) -> slice:
    """Return the rows that FSDP2 gives to `rank`: equal chunks, the last ones shorter or empty."""
    chunk = -(-rows // world)
    return slice(min(rank * chunk, rows), min((rank + 1) * chunk, rows))


def require_sharded(model: nn.Module, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    """Check that FSDP really shards: a silent fall-back to whole copies would only show as memory.

    Raises:
        StageError: a parameter is not a DTensor of this mesh, or this rank holds more or less than its rows.
    """
    rank, world = mesh.get_local_rank(), mesh.size()
    for name, parameter in model.named_parameters():
        if not isinstance(parameter, DTensor) or tuple(parameter.placements) != (Shard(0),):
            raise StageError(f"{name}: is not sharded over the {world} processes ({type(parameter).__name__})")
        rows = shard_rows(parameter.shape[0], rank, world)
        expected = (rows.stop - rows.start) * parameter[0].numel() if parameter.dim() > 1 else rows.stop - rows.start
        if parameter.to_local().numel() != expected or parameter.dtype != dtype:
            found = f"{parameter.to_local().numel()} values of {parameter.dtype}"
            raise StageError(f"{name}: rank {rank} holds {found}, its shard has {expected} of {dtype}")


def _load(model: PackedLlama, base: Path, mesh: DeviceMesh) -> None:
    wanted = dict(model.named_parameters())
    for path in model_files(base):
        entries = {e.name: e for e in read_header(path) if not _COMPUTED.search(e.name)}
        with safe_open(path, framework="pt", device="cpu") as tensors:
            for name, entry in entries.items():
                parameter = wanted.pop(name, None)
                if parameter is None or tuple(parameter.shape) != entry.shape:
                    want = "no such tensor" if parameter is None else f"shape {list(parameter.shape)}"
                    raise StageError(f"{path}: {name} has shape {list(entry.shape)}, config.json asks for {want}")
                rows = shard_rows(entry.shape[0], mesh.get_local_rank(), mesh.size())
                if rows.stop > rows.start:
                    with torch.no_grad():
                        shard_of(parameter).copy_(tensors.get_slice(name)[rows])
    if wanted:
        raise StageError(f"{base}: lacks {len(wanted)} tensors that config.json asks for, the first is {min(wanted)}")


def whole_tensors(model: nn.Module, mesh: DeviceMesh) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, whole tensor on the CPU) in order of names; all ranks must iterate together.

    Only one tensor is whole at a time: the largest of a 13B model in fp32 has 655 MB.
    """
    for name, parameter in sorted(model.named_parameters()):
        local = shard_of(parameter).detach().to(mesh.device_type)
        whole = DTensor.from_local(
            local, mesh, (Shard(0),), run_check=False, shape=parameter.shape, stride=parameter.stride()
        )
        yield name, whole.full_tensor().cpu()
