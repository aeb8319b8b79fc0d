"""Peak memory of one GPU without a GPU: torch's FSDP memory tracker over fake tensors, on the trainer's own model.

A run over n layers costs seconds, over 40 a minute, so four and five layers are tracked and the rest follows exactly:
inside one segment (forward of layer i, the loss, backward of layer i, ...) every operation has the same number of
finished layers before it, so the segment's peak is affine in the number of layers; and between the outer layers memory
runs along a line, so its ends bound it. The peak is the largest segment's. A test compares with whole tracks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn import functional
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers.modeling_utils import AttentionInterface

from scripts.recipe.pack import PackSettings
from scripts.recipe.train import Numerics, Optimizer
from scripts.train.model import PackedLlama, materialize, sharded_model
from scripts.train.optimizer import build_optimizer, local_gradients, moments
from scripts.train.reader import Line

_STAND_IN = "planned_varlen"
_TRACKED = (4, 5)
"""Layers of the two tracked models: two at each end see FSDP's prefetching, and one may lie between."""
_EDGE = 2

Snapshot = dict[str, int]
"""Bytes by the tracker's kind (`Sharded Param`, `OptState`, ...) and in `Total`."""

_HOST_KINDS = ("Sharded Param", "Sharded Grad", "OptState")
"""What lies in host memory with `fsdp_offload_params`."""


@dataclass(frozen=True)
class Memory:
    """Peak memory of one rank, bytes; kinds are those of the moment of the peak."""

    peak_bytes: int
    params_bytes: int
    """This rank's shard of the weights."""
    grads_bytes: int
    """Its shard of the gradients, as far as they exist at the peak."""
    optimizer_bytes: int
    """Its shard of Adam's moments."""
    unsharded_bytes: int
    """Whole layers, their gradients, and the buffers of the collectives."""
    activations_bytes: int
    """Activations, logits, temporary tensors."""
    loss_bytes: int
    """What the loss adds on top of the last layer's output: chunked logits and gradients of the head."""
    host_bytes: int
    """Host memory of this rank's offloaded shards (0 without offloading)."""
    where: str
    """The moment of the peak."""

    @property
    def static_bytes(self) -> int:
        """Weights, gradients and Adam's moments of this rank."""
        return self.params_bytes + self.grads_bytes + self.optimizer_bytes


class SegmentTracker(FSDPMemTracker):  # type: ignore[no-untyped-call,unused-ignore]
    """FSDPMemTracker that keeps one peak a segment of the step instead of one a module (which is slow, too)."""

    def __init__(self, model: PackedLlama, optimizer: torch.optim.AdamW, offload: bool) -> None:
        super().__init__(model, optimizer)
        self._layers = list(model.model.layers)
        self._offload = offload
        self._segment = "start"
        self.peaks: dict[str, Snapshot] = {}

    def _update_peak_stats(self, peak_state: Any) -> None:
        for snapshot in self._curr_mem_snap.values():
            used = self._used(snapshot)
            if used > self.peaks.get(self._segment, {"used": -1})["used"]:
                self.peaks[self._segment] = {**{str(getattr(k, "value", k)): v for k, v in snapshot.items()}}
                self.peaks[self._segment]["used"] = used

    def _used(self, snapshot: dict[Any, int]) -> int:
        hidden = 0
        if self._offload:
            hidden = sum(v for k, v in snapshot.items() if getattr(k, "value", k) in _HOST_KINDS)
        return snapshot["Total"] - hidden

    def _enter(self, kind: str, module: nn.Module) -> None:
        """Name the segment by the layer's distance from the nearer end, so that two depths have the same names."""
        index, count = self._layers.index(module), len(self._layers)
        self._segment = f"{kind} of layer {index if index < _EDGE else index - count}"

    def _fsdp_state_pre_forward(self, fsdp_mod: Any, orig_fsdp_state_pre_fw: Any) -> Any:
        inner = super()._fsdp_state_pre_forward(fsdp_mod, orig_fsdp_state_pre_fw)

        def marked(*args: Any, **kwargs: Any) -> Any:
            if fsdp_mod in self._layers and not self._mod_tracker.is_bw:
                self._enter("forward", fsdp_mod)
            return inner(*args, **kwargs)

        return marked

    def _fsdp_state_post_forward(self, fsdp_mod: Any, orig_fsdp_state_post_fw: Any) -> Any:
        inner = super()._fsdp_state_post_forward(fsdp_mod, orig_fsdp_state_post_fw)

        def marked(*args: Any, **kwargs: Any) -> Any:
            result = inner(*args, **kwargs)
            if fsdp_mod is self._layers[-1] and not self._mod_tracker.is_bw:
                self._segment = "loss"
                self.peaks.setdefault("loss begins", {**self._now()})
            return result

        return marked

    def _fsdp_param_group_pre_backward(self, fsdp_mod: Any, orig_fsdp_param_group_pre_backward: Any) -> Any:
        inner = super()._fsdp_param_group_pre_backward(fsdp_mod, orig_fsdp_param_group_pre_backward)

        def marked(*args: Any, **kwargs: Any) -> None:
            if fsdp_mod in self._layers:
                self._enter("backward", fsdp_mod)
            inner(*args, **kwargs)

        return marked

    def _fsdp_param_group_post_backward(self, fsdp_mod: Any, orig_fsdp_param_group_post_backward: Any) -> Any:
        inner = super()._fsdp_param_group_post_backward(fsdp_mod, orig_fsdp_param_group_post_backward)

        def marked(*args: Any, **kwargs: Any) -> None:
            inner(*args, **kwargs)
            if fsdp_mod is self._layers[0]:
                self._segment = "last gradients"

        return marked

    def _now(self) -> Snapshot:
        (snapshot,) = self._curr_mem_snap.values()
        return {**{str(getattr(k, "value", k)): v for k, v in snapshot.items()}, "used": self._used(snapshot)}

    def end(self, extra_bytes: int) -> None:
        """Record the moment of clipping: all gradients, and `extra_bytes` of temporary tensors."""
        now = self._now()
        for kind in ("Temp", "Total", "used"):
            now[kind] = now.get(kind, 0) + extra_bytes
        self.peaks["gradient norm"] = now


def peak_memory(config: dict[str, Any], numerics: Numerics, pack: PackSettings, world: int) -> Memory:
    """Return the peak memory of rank 0 (no rank has more) in a step after the first.

    Args:
        config: Llama's config.json.
        numerics: precision, checkpointing, attention, offloading.
        pack: `sequence_len * micro_batch_size` tokens a line; accumulation keeps gradients between lines.
        world: number of processes.
    """
    layers = config["num_hidden_layers"]
    if layers <= max(_TRACKED):
        return _memory(track_segments(config, numerics, pack, world), numerics)
    few, more = (track_segments({**config, "num_hidden_layers": n}, numerics, pack, world) for n in _TRACKED)
    peaks: dict[str, Snapshot] = {}
    for name in few.keys() & more.keys():
        slopes = {kind: more[name].get(kind, 0) - few[name].get(kind, 0) for kind in few[name] | more[name]}
        peaks[name] = {k: more[name].get(k, 0) + slope * (layers - _TRACKED[1]) for k, slope in slopes.items()}
    return _memory(peaks, numerics)


def track_segments(config: dict[str, Any], numerics: Numerics, pack: PackSettings, world: int) -> dict[str, Snapshot]:
    """Return each segment's peak of one optimizer step over all the layers of `config`; nothing is computed.

    The tracker's traps: the mesh is made outside FakeTensorMode; Adam's moments exist beforehand as after a resume,
    since the first step's temporary tensors would count as optimizer state; the fused step itself needs no more.
    On the fake CPU device its flash kernel stands in for the GPU's, with the same saved tensors.
    """
    planned = numerics.model_copy(update={"attention": "sdpa", "fsdp_offload_params": False})
    tokens = pack.sequence_len * pack.micro_batch_size
    with _fake_group(world) as mesh:
        model = sharded_model(config, planned, mesh)
        if numerics.attention != "sdpa":
            model.set_attn_implementation(_STAND_IN)
        with FakeTensorMode(allow_non_fake_inputs=True):
            materialize(model, planned, mesh)
            optimizer = build_optimizer(model, Optimizer())
            for parameter in model.parameters():
                moments(optimizer, parameter)
            ids, positions = torch.zeros(tokens, dtype=torch.int64), torch.arange(tokens)
            lengths = [pack.sequence_len] * pack.micro_batch_size
            line = Line(ids, ids.clone(), positions, lengths, list(range(len(lengths))), tokens)
            tracker = SegmentTracker(model, optimizer, numerics.fsdp_offload_params)
            with tracker:
                # A third line needs what the second one needs.
                for _ in range(min(pack.gradient_accumulation_steps, 2)):
                    loss = model(line)
                    (loss * 0.5).backward()
                    del loss
                    tracker.reset_mod_stats()
                # sum_of_squares takes an fp32 copy of 16-bit gradients and its square, a gradient at a time.
                copies = 1 if numerics.precision != "pure_bf16" else 2
                tracker.end(max(g.numel() for g in local_gradients(model)) * 4 * copies)
    return tracker.peaks


def _memory(peaks: dict[str, Snapshot], numerics: Numerics) -> Memory:
    begins = peaks["loss begins"]
    segments = {name: peak for name, peak in peaks.items() if name != "loss begins"}
    where = max(segments, key=lambda name: segments[name]["used"])
    at = segments[where]
    kinds = {name: at.get(name, 0) for name in _HOST_KINDS}
    unsharded = sum(at.get(k, 0) for k in ("Unsharded Param", "Unsharded Grad", "All Gather", "Reduce Scatter"))
    on_device = {name: 0 if numerics.fsdp_offload_params else value for name, value in kinds.items()}
    end = peaks["gradient norm"]
    return Memory(
        peak_bytes=at["used"],
        params_bytes=on_device["Sharded Param"],
        grads_bytes=on_device["Sharded Grad"],
        optimizer_bytes=on_device["OptState"],
        unsharded_bytes=unsharded,
        activations_bytes=at["used"] - sum(on_device.values()) - unsharded,
        loss_bytes=peaks["loss"]["used"] - begins["used"],
        host_bytes=sum(end.get(name, 0) for name in _HOST_KINDS) if numerics.fsdp_offload_params else 0,
        where=where,
    )


@contextmanager
def _fake_group(world: int) -> Iterator[DeviceMesh]:
    """Make this process rank 0 of `world` whose other ranks don't exist."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
    try:
        yield init_device_mesh("cpu", (world,))
    finally:
        dist.destroy_process_group()


def _varlen_stand_in(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """One flash call over the line: saves what a varlen kernel saves (q, k, v, output, log-sum-exp)."""
    assert attention_mask is None
    grouped = query.shape[1] != key.shape[1]
    attend = cast(Callable[..., Tensor], functional.scaled_dot_product_attention)
    output = attend(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(_STAND_IN, _varlen_stand_in)
