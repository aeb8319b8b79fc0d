"""Attention over packed rows: each kernel is told where rows begin, so no token ever sees another row.

No kernel gets a mask that could be forgotten or a batch that could be read as one text. `require_isolation` tries the
chosen kernel on this machine before any weight is read.

Shape suffixes: B batch (always 1), H heads, T tokens, D head size, N rows.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers.modeling_utils import AttentionInterface

from scripts.artifact.stage import StageError
from scripts.train.blockmask import row_block_mask

PACKED = "packed_rows"
"""Name under which transformers' Llama finds `packed_attention`."""


@dataclass(frozen=True)
class Rows:
    """Where the rows of one packed line lie, made once a line and used by every layer."""

    kernel: str
    lengths: list[int]
    """Tokens of each row, in order."""
    bounds_N1: Tensor
    """int32 [N + 1], on the device: row n is tokens bounds[n] to bounds[n + 1] - 1."""
    longest: int
    block_mask: BlockMask | None
    """For flex_attention."""

    @classmethod
    def of(cls, kernel: str, lengths: list[int], device: torch.device) -> "Rows":
        """Return the rows of a line for `kernel`."""
        bounds_N1 = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32).to(device, non_blocking=True)
        mask = row_block_mask(lengths, device) if kernel == "flex_attention" else None
        return cls(kernel, lengths, bounds_N1, max(lengths), mask)


def packed_attention(
    module: nn.Module,
    query_BHTD: Tensor,
    key_BHTD: Tensor,
    value_BHTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    rows: Rows | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row; the signature is transformers' attention interface.

    Returns:
        ([B, T, H, D], None): the output, and no weights.

    Raises:
        ValueError: no rows, or a mask, which would say something else than the rows.
    """
    if rows is None or attention_mask is not None:
        raise ValueError("packed attention needs rows and no mask")
    return KERNELS[rows.kernel](query_BHTD, key_BHTD, value_BHTD, rows, scaling), None


# On a CPU it would warn that it is not compiled.
warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")


def _sdpa(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, rows: Rows, scale: float | None) -> Tensor:
    """One call a row costs sum(length^2); a [T, T] mask is 1 GiB at T = 32,768 and no block of it is skipped."""
    grouped = query_BHTD.shape[1] != key_BHTD.shape[1]
    # split, not slices: its backward is one concatenation, a slice's is a zero-filled copy of the whole line.
    parts = zip(*(torch.split(x, rows.lengths, dim=2) for x in (query_BHTD, key_BHTD, value_BHTD)), strict=True)
    outputs = [
        functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
        for q, k, v in parts
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _flex(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, rows: Rows, scale: float | None) -> Tensor:
    grouped = query_BHTD.shape[1] != key_BHTD.shape[1]
    out_BHTD: Tensor = _compiled_flex(query_BHTD.device.type)(
        query_BHTD, key_BHTD, value_BHTD, block_mask=rows.block_mask, scale=scale, enable_gqa=grouped
    )
    return out_BHTD.transpose(1, 2).contiguous()


@cache
def _compiled_flex(device_type: str) -> Callable[..., Any]:
    """Return flex_attention; on a CPU its uncompiled form, which torch 2.13 gives no backward pass."""
    attend: Any = flex_attention  # overloaded in torch
    return torch.compile(attend, dynamic=True) if device_type == "cuda" else attend


def _tokens_first(x_BHTD: Tensor) -> Tensor:
    return x_BHTD.transpose(1, 2)[0]


def _torch_varlen(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, rows: Rows, scale: float | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    q_THD, k_THD, v_THD = map(_tokens_first, (query_BHTD, key_BHTD, value_BHTD))
    bounds = rows.bounds_N1
    # Said only where it is needed: torch before 2.12 has the kernel, but not this option.
    grouped: dict[str, Any] = {"enable_gqa": True} if q_THD.shape[1] != k_THD.shape[1] else {}
    out_THD = varlen_attn(
        q_THD,
        k_THD,
        v_THD,
        bounds,
        bounds,
        rows.longest,
        rows.longest,
        scale=scale,
        window_size=(-1, 0),  # causal
        **grouped,
    )
    assert isinstance(out_THD, Tensor)
    return out_THD[None]


def _flash(package: str) -> Callable[..., Tensor]:
    def attend(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, rows: Rows, scale: float | None) -> Tensor:
        from importlib import import_module

        q_THD, k_THD, v_THD = map(_tokens_first, (query_BHTD, key_BHTD, value_BHTD))
        bounds, longest = rows.bounds_N1, rows.longest
        options = {
            "softmax_scale": scale,
            "causal": True,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }
        varlen = import_module(package).flash_attn_varlen_func
        out = varlen(q_THD, k_THD, v_THD, bounds, bounds, longest, longest, **options)
        # Version 3 returned (output, log-sum-exp) for a while.
        out_THD: Tensor = out[0] if isinstance(out, tuple) else out
        return out_THD[None]

    return attend


_opaque: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] = torch.compiler.disable  # untyped in torch

# torch_varlen alone is left to the compiler of `levers.compile_layers`: the others would be compiled anew for each
# set of rows (sdpa), are compiled already (flex) or are no part of torch.
KERNELS: dict[str, Callable[..., Tensor]] = {
    "sdpa": _opaque(_sdpa),
    "flex_attention": _opaque(_flex),
    "torch_varlen": _torch_varlen,
    "flash_attention_2": _opaque(_flash("flash_attn")),
    "flash_attention_3": _opaque(_flash("flash_attn_interface")),
}
AttentionInterface.register(PACKED, packed_attention)


def require_isolation(kernel: str, device: torch.device, dtype: torch.dtype, heads: int, head_dim: int) -> None:
    """Run `kernel` on three short rows, and again with another first row: the others must not change by a bit.

    Raises:
        StageError: it can't run on this machine, or a token saw another row.
    """
    lengths = [5, 64, 9]
    generator = torch.Generator().manual_seed(0)
    # Heads and their size as in the model: kernels have limits on them.
    qkv = torch.randn(3, 1, heads, sum(lengths), head_dim, generator=generator).to(device, dtype)
    other = qkv.clone()
    other[:, :, :, : lengths[0]] += 1.0
    rows = Rows.of(kernel, lengths, device)
    try:
        with torch.no_grad():
            first, second = (KERNELS[kernel](*x, rows, head_dim**-0.5)[0, lengths[0] :] for x in (qkv, other))
            alone = KERNELS[kernel](*qkv[..., : lengths[0], :], Rows.of(kernel, lengths[:1], device), head_dim**-0.5)
    except (ImportError, RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise StageError(f"numerics.attention {kernel} can't run on this machine: {reason}; sdpa always can") from None
    if not (torch.equal(first, second) and bool(torch.isfinite(alone).all())):
        raise StageError(f"numerics.attention {kernel} lets packed rows see each other on this machine; use sdpa")
