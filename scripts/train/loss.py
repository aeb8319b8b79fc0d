"""Next-token loss straight from hidden states: the [T, V] logits of a whole line need not exist.

Shape suffixes: T tokens, C tokens of one chunk, D hidden size, V vocabulary.
At 32,768 tokens and a vocabulary of 32,000 full logits with their gradient are 7.8 GiB in fp32; a chunk of 1,024 tokens
needs 125 MiB, and its matrix products are large enough to be efficient.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from scripts.train.reader import IGNORE


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes the gradients chunk by chunk in the forward pass, while a chunk's logits are at hand."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, chunk: int, with_grad: bool
    ) -> Tensor:
        """Return each token's loss, fp32 [T]; with `with_grad` keep the gradients of their sum."""
        losses_T = torch.zeros(len(targets_T), dtype=torch.float32, device=hidden_TD.device)
        if with_grad:
            grad_hidden_TD = torch.zeros_like(hidden_TD)
            # fp32 even for bf16 weights: all chunks are added up in it.
            grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
        for start in range(0, len(targets_T), chunk):
            part = slice(start, start + chunk)
            hidden_CD, targets_C = hidden_TD[part], targets_T[part]
            counted_C = (targets_C != IGNORE).float()
            index_C1 = targets_C.clamp_min(0)[:, None]
            logp_CV = functional.log_softmax(functional.linear(hidden_CD, weight_VD).float(), dim=-1)
            losses_T[part] = -logp_CV.gather(1, index_C1).squeeze(1) * counted_C
            if with_grad:
                grad_CV = logp_CV.exp_().scatter_add_(1, index_C1, -torch.ones_like(counted_C)[:, None])
                grad_CV = (grad_CV * counted_C[:, None]).to(weight_VD.dtype)
                grad_hidden_TD[part] = grad_CV @ weight_VD
                grad_weight_VD += grad_CV.t() @ hidden_CD
        if with_grad:
            ctx.save_for_backward(grad_hidden_TD, grad_weight_VD.to(weight_VD.dtype))
        return losses_T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Scale the gradients that the forward pass has computed."""
        grad_hidden_TD, grad_weight_VD = ctx.saved_tensors
        # All tokens have the same weight in the sum below, so one scalar scales both.
        scale = grads[0][0].to(grad_hidden_TD.dtype)
        return grad_hidden_TD * scale, grad_weight_VD * scale, None, None, None


_apply: Callable[..., Tensor] = _LinearCrossEntropy.apply  # untyped in torch


def token_losses(hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, chunk: int) -> Tensor:
    """Return the cross-entropy of each token, fp32 [T], nats; 0 where the target is IGNORE. No gradient.

    Args:
        hidden_TD: final hidden states.
        weight_VD: the output embedding.
        targets_T: the token to predict from each position, or IGNORE.
        chunk: tokens whose logits exist at one time; 0: all.
    """
    with torch.no_grad():
        result: Tensor = _apply(hidden_TD, weight_VD, targets_T, chunk or len(targets_T), False)
        return result


def summed_loss(hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, chunk: int) -> Tensor:
    """Return the sum of the token losses, fp32 scalar, differentiable; arguments as of `token_losses`.

    With `chunk` 0 it is torch's own cross-entropy on the logits of the whole line.
    """
    if not chunk:
        logits_TV = functional.linear(hidden_TD, weight_VD).float()
        return functional.cross_entropy(logits_TV, targets_T, ignore_index=IGNORE, reduction="sum")
    losses_T: Tensor = _apply(hidden_TD, weight_VD, targets_T, chunk, True)
    return losses_T.sum()
