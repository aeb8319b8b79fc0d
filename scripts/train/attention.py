"""Attention over packed rows, one row at a time: no mask exists that could be forgotten, so nothing leaks.

A block mask for sdpa would be [T, T] (1 GiB at T = 32,768) and no kernel skips its empty blocks; one call a row
costs sum(length^2) instead of T^2.

Shape suffixes: B batch (always 1), H heads, T tokens, D head size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import AttentionInterface

PACKED_SDPA = "packed_sdpa"


def packed_sdpa(
    module: nn.Module,
    query_BHTD: Tensor,
    key_BHTD: Tensor,
    value_BHTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    row_lengths: list[int] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row; the signature is transformers' attention interface.

    Args:
        row_lengths: tokens of each row, in order; their sum is T.

    Returns:
        ([B, T, H, D], None): the output, and no weights.

    Raises:
        ValueError: no row lengths, or a mask, which would say something else than the row lengths.
    """
    if row_lengths is None or attention_mask is not None:
        raise ValueError("packed attention needs row_lengths and no mask")
    grouped = query_BHTD.shape[1] != key_BHTD.shape[1]
    # split, not slices: its backward is one concatenation, a slice's is a zero-filled copy of the whole line.
    rows = zip(*(torch.split(x, row_lengths, dim=2) for x in (query_BHTD, key_BHTD, value_BHTD)), strict=True)
    outputs = [
        functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in rows
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(PACKED_SDPA, packed_sdpa)
