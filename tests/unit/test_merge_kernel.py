"""The compiled loops of the merge: bit for bit what torch and numpy give, whatever the processor's vector width."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scripts.merge import kernel
from scripts.merge.arithmetic import BLOCK, Values

Narrow = Callable[[NDArray[np.uint32], NDArray[np.uint16]], int]
_FORMATS = [
    (kernel.widen_bf16, kernel.round_bf16, torch.bfloat16),
    (kernel.widen_f16, kernel.round_f16, torch.float16),
]


def _fp32(words: NDArray[np.uint32]) -> torch.Tensor:
    return torch.from_numpy(words.view(np.int32)).view(torch.float32)


@pytest.mark.parametrize(("widen", "narrow", "dtype"), _FORMATS)
def test_all_65536_values_go_to_fp32_and_back(
    widen: Callable[[NDArray[np.uint16], NDArray[np.uint32]], None], narrow: Narrow, dtype: torch.dtype
) -> None:
    halves, words, back = (
        np.arange(1 << 16, dtype=np.uint16),
        np.zeros(1 << 16, np.uint32),
        np.zeros(1 << 16, np.uint16),
    )
    widen(halves, words)
    wanted = torch.from_numpy(halves.view(np.int16)).view(dtype).float()
    bits, number = wanted.view(torch.int32).numpy().view(np.uint32), ~np.isnan(wanted.numpy())
    assert np.array_equal(words[number], bits[number])
    assert np.isnan(words.view(np.float32)[~number]).all()
    assert narrow(words, back) == 2  # 0 and -0
    assert np.array_equal(back[number], halves[number])


@pytest.mark.parametrize(("narrow", "dtype"), [(narrow, dtype) for _, narrow, dtype in _FORMATS])
def test_rounding_is_torchs(narrow: Narrow, dtype: torch.dtype) -> None:
    """Every exponent and sign with mantissas at, below and above each tie, and random words."""
    ties = [0, 1, 0xFFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x3001, 0x7FFF, 0x8000, 0x8001, 0xEFFF, 0xF000, 0xFFFF]
    edges = (np.arange(1 << 16, dtype=np.uint32)[:, None] << 16) | np.array(ties, np.uint32)
    random = np.random.default_rng(0).integers(0, 1 << 32, 1 << 20, dtype=np.uint32)
    words = np.concatenate([edges.ravel(), random])
    found = np.zeros(len(words), np.uint16)
    zeros = narrow(words, found)
    wanted = _fp32(words).to(dtype)
    number = ~np.isnan(words.view(np.float32))
    assert np.array_equal(found[number], wanted.view(torch.int16).numpy().view(np.uint16)[number])
    assert torch.from_numpy(found[~number].view(np.int16)).view(dtype).isnan().all()
    assert zeros == int((wanted == 0).sum())


def test_a_blend_is_two_products_and_a_sum() -> None:
    """Not fused: with a fused multiply-add a fifth of the values would have another last bit."""
    a, b = np.random.default_rng(0).standard_normal((2, BLOCK), np.float32)
    own, share, out = np.float32(0.7), np.float32(0.3), np.empty(BLOCK, np.float32)
    kernel.blend(a, b, own, share, out)
    assert np.array_equal(out, a * own + b * share)
    kernel.blend(out, b, own, share, out)
    assert np.array_equal(out, (a * own + b * share) * own + b * share)


@pytest.mark.parametrize("count", [BLOCK, 64 * kernel.LANES, 3 * kernel.LANES + 5, 7])
def test_squares_are_added_line_by_line(count: int) -> None:
    """The figures' determinism rests on this: never pairwise, never fused, never in the order of a vector width."""
    c, a, b = np.random.default_rng(0).standard_normal((3, count), np.float32)
    sums = np.zeros((5, kernel.LANES), np.float32)
    kernel.add_squares(c, a, b, sums)
    for found, values in zip(sums, (c, a, b, c - a, c - b), strict=True):
        by_hand = np.zeros(kernel.LANES, np.float32)
        for start in range(0, count, kernel.LANES):
            line = values[start : start + kernel.LANES]
            by_hand[: len(line)] += line * line
        assert np.array_equal(found, by_hand)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_values_that_became_0_are_counted_but_not_those_that_were(dtype: str) -> None:
    exact = np.array([0.0, -0.0, 1e-44, -1e-44, 1.0], np.float32)
    values = Values(dtype, np.zeros(5, np.uint32) if dtype == "F32" else np.zeros(5, np.uint16))
    assert values.fill(slice(None), exact) == (0 if dtype == "F32" else 2)
    assert values.floats(slice(None), np.empty(5, np.float32))[4] == 1.0
