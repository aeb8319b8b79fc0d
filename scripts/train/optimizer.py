"""AdamW over sharded parameters, and a gradient norm that no thread count can change."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from scripts.recipe.train import Optimizer
from scripts.train.model import shard_of

_BLOCK = 16_384
"""Values summed by one thread: below the 32,768 from which ATen splits a sum by the number of threads."""


def build_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.AdamW:
    """Return AdamW with decay on matrices only, or on norms too with `decay_norms`.

    `fused=True` also for the bits: the other implementations go through MKL's square root, which differs
    between processors; the fused kernel uses the correctly rounded instruction.
    """
    named = sorted(model.named_parameters())
    decayed = [p for _, p in named if p.dim() > 1 or settings.decay_norms]
    rest = [p for _, p in named if p.dim() <= 1 and not settings.decay_norms]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_eps,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.AdamW, rate: float) -> None:
    """Set the rate of the next step in every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def moments(optimizer: torch.optim.AdamW, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Return this rank's part of Adam's two moments, made (as zeros) if no step was taken yet."""
    state: dict[str, Any] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=shard_of(parameter).device)
        state["exp_avg"] = torch.zeros_like(parameter.detach())
        state["exp_avg_sq"] = torch.zeros_like(parameter.detach())
    return {name: state[name].to_local() for name in ("exp_avg", "exp_avg_sq")}


def set_steps_taken(optimizer: torch.optim.AdamW, steps: int) -> None:
    """Set the step count of Adam's bias correction after its moments were restored."""
    for state in optimizer.state.values():
        state["step"].fill_(float(steps))


def local_gradients(model: nn.Module) -> list[Tensor]:
    """Return this rank's part of every gradient, in order of parameter names."""
    grads = []
    for _, parameter in sorted(model.named_parameters()):
        assert isinstance(parameter.grad, DTensor)
        grads.append(parameter.grad.to_local())
    return grads


def sum_of_squares(grads: list[Tensor]) -> float:
    """Return the sum of squares in double precision, the same for any number of threads.

    Block sums are added with `math.fsum`, which is exact; no torch.sqrt on the way (see `build_optimizer`).
    """
    parts: list[Tensor] = []
    for grad in grads:
        flat = grad.detach().flatten()
        whole = len(flat) // _BLOCK * _BLOCK
        blocks = [b for b in (flat[:whole].view(-1, _BLOCK), flat[whole:][None]) if b.numel()]
        parts += [b.float().square().sum(dim=1, dtype=torch.float64) for b in blocks]
    sums = torch.cat(parts).tolist() if parts else []
    return math.fsum(sums) if all(map(math.isfinite, sums)) else math.nan


def clip(grads: list[Tensor], norm: float, max_norm: float) -> None:
    """Scale the gradients so that their global norm is at most `max_norm` (as torch's clip_grad_norm_)."""
    factor = max_norm / (norm + 1e-6)
    if factor < 1.0:
        torch._foreach_mul_([g for g in grads if g.numel()], factor)
