"""The block mask of flex_attention for packed rows, from the rows' bounds: [T, T] is never formed.

torch's `create_block_mask` evaluates every pair of tokens, 1 GiB at T = 32,768; here blocks are compared, 256 x 256.
Shape suffixes: T tokens, Q and K blocks of 128 tokens.
"""

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Side of a block: flex_attention's own default."""


def row_block_mask(lengths: list[int], device: torch.device) -> BlockMask:
    """Return the mask that lets each token see itself and what precedes it in its row.

    Args:
        lengths: tokens of each row, in order; their sum is T.
        device: where attention runs.
    """
    tokens = sum(lengths)
    row_T = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    starts_Q = torch.arange(0, tokens, BLOCK)
    ends_Q = (starts_Q + BLOCK).clamp_max(tokens) - 1
    first_Q, last_Q = row_T[starts_Q], row_T[ends_Q]
    blocks_Q = torch.arange(len(starts_Q))
    earlier_QK = blocks_Q[:, None] > blocks_Q[None, :]
    diagonal_QK = blocks_Q[:, None] == blocks_Q[None, :]
    seen_QK = diagonal_QK | (earlier_QK & (last_Q[None, :] >= first_Q[:, None]))
    # Of one row alone, and wholly before: no pair needs to be looked at. `last` of the later one decides.
    full_QK = earlier_QK & (first_Q[None, :] == last_Q[:, None])
    if tokens % BLOCK:
        full_QK[-1] = False  # a block with queries beyond the end is never full, as in create_block_mask
    row_on_device_T = row_T.to(device)

    def visible(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (row_on_device_T[query] == row_on_device_T[key])

    partial, full = _indices(seen_QK & ~full_QK, device), _indices(full_QK, device)
    return BlockMask.from_kv_blocks(*partial, *full, BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=(tokens, tokens))


def _indices(wanted_QK: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return (how many, which first) of each row of blocks, as from_kv_blocks takes them."""
    counts = wanted_QK.sum(dim=1, dtype=torch.int32)
    order = torch.argsort(wanted_QK.to(torch.int8), dim=1, descending=True, stable=True).to(torch.int32)
    return counts[None, None].to(device), order[None, None].to(device)
