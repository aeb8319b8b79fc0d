"""What makes a step faster or smaller: recomputation, compiled layers, FSDP's gathering, timed garbage collection."""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from scripts.recipe.train import Levers

_Forward = Callable[..., Any]
_contexts: Callable[..., Any] = create_selective_checkpoint_contexts  # untyped in torch


def wrap_layers(layers: nn.ModuleList, levers: Levers, *, checkpointing: bool) -> None:
    """Recompute and compile each decoder layer as asked; must precede FSDP, whose hooks then stay outside.

    Full recomputation goes around the compiled layer, so that a kernel that the compiler can't follow may break the
    graph; a selective one goes inside, where the compiler sees which results are kept.
    """
    selective = checkpointing and levers.checkpoint_policy == "selective"
    for layer in layers:
        forward: _Forward = layer.forward
        if selective:
            forward = _recomputed(layer, forward, _keep_expensive)
        if levers.compile_layers:
            # dynamic: packed lines differ in length, and one graph must do for all.
            forward = torch.compile(forward, dynamic=True, fullgraph=selective)
        if checkpointing and not selective:
            forward = _recomputed(layer, forward, None)
        layer.forward = forward


def _recomputed(layer: nn.Module, forward: _Forward, contexts: Callable[[], Any] | None) -> _Forward:
    # Nothing random is in a layer, so no generator's state has to be put back.
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if contexts is not None:
        options["context_fn"] = contexts

    def run(*args: Any, **kwargs: Any) -> Any:
        if not (layer.training and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, **options, **kwargs)

    return run


def _keep_expensive() -> Any:
    """Return contexts that keep attention's result and every second matrix product (torchtitan's selection)."""
    return _contexts(partial(_policy, {False: 0, True: 0}))


def _policy(products: dict[bool, int], context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    name = str(operation)
    if "attention" in name or "attn" in name:
        return CheckpointPolicy.MUST_SAVE
    if name.startswith("aten.mm."):
        products[context.is_recompute] += 1
        if products[context.is_recompute] % 2:
            return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def set_prefetch(layers: nn.ModuleList, ahead: int) -> None:
    """Let FSDP gather `ahead` layers before they are needed, forward and backward; 0 leaves it as FSDP does it."""
    for i, layer in enumerate(layers if ahead else []):
        assert isinstance(layer, FSDPModule)
        layer.set_modules_to_forward_prefetch(_sharded(layers[i + 1 : i + 1 + ahead]))
        layer.set_modules_to_backward_prefetch(_sharded(reversed(layers[max(0, i - ahead) : i])))


def _sharded(layers: Iterable[nn.Module]) -> list[FSDPModule]:
    return [layer for layer in layers if isinstance(layer, FSDPModule)]


@contextmanager
def timed_collection(steps: int) -> Iterator[Callable[[int], None]]:
    """Switch Python's own garbage collection off; yield a function that collects every `steps` steps.

    Processes that collect at different steps wait for each other at each of them. With 0 nothing is changed.
    """

    def collect(step: int) -> None:
        if steps and step % steps == 0:
            gc.collect(1)

    was = gc.isenabled()
    if steps:
        gc.disable()
    try:
        yield collect
    finally:
        if was:
            gc.enable()
