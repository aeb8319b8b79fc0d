"""The compiled loops of the merge: bit for bit what torch and numpy give, whatever the processor's vector width."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numba import njit
from numpy.typing import NDArray

from scripts.merge import kernel
from scripts.merge.arithmetic import Chunk, Recipe, Scratch, Values, blend_chunk
from scripts.merge.kernel import BLOCK, LANES


def _callable(part: Any) -> Any:
    """Compile a part of the kernel so that Python can call it."""
    return njit(part.py_func)


Narrow = Callable[[NDArray[np.uint32], NDArray[np.uint16]], int]
_FORMATS = [
    (_callable(kernel.widen_bf16), _callable(kernel.round_bf16), torch.bfloat16),
    (_callable(kernel.widen_f16), _callable(kernel.round_f16), torch.float16),
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
    a[:3] = b[:3] = 0.0
    own, share, out = np.float32(0.7), np.float32(0.3), a.copy()
    assert _callable(kernel.blend)(out, b, own, share) == 3
    assert np.array_equal(out, a * own + b * share)


def _chunk(first: NDArray[np.float32], second: NDArray[np.float32] | None, dtype: str = "F32") -> Chunk:
    words = np.zeros(len(first), np.uint32) if dtype == "F32" else np.zeros(len(first), np.uint16)
    two = None if second is None else Values("F32", second.view(np.uint32))
    return Chunk("x", 0, Values("F32", first.view(np.uint32)), two, Values(dtype, words))


@pytest.mark.parametrize("count", [2 * BLOCK + 3 * LANES + 5, 7])
@pytest.mark.parametrize("paired", [True, False])
def test_squares_are_added_line_by_line(count: int, paired: bool) -> None:
    """The figures' determinism rests on this: never pairwise, never fused, never in the order of a vector width."""
    a, b = np.random.default_rng(0).standard_normal((2, count), np.float32)
    scratch = Scratch()
    scratch.lines[:] = 7.0  # what an earlier chunk left behind
    part = blend_chunk(chunk := _chunk(a, b if paired else None), Recipe.of((0.3,)), scratch)
    c = chunk.out.words.view(np.float32)
    assert np.array_equal(c, a * np.float32(0.7) + b * np.float32(0.3) if paired else a)
    b = b if paired else c  # without a second model the sums that need it are 0
    for found, values in zip(part.sums, (c, a, b if paired else b * 0, c - a, c - b), strict=True):
        by_hand = np.zeros(LANES)
        for block in range(0, count, BLOCK):
            sums = np.zeros(LANES, np.float32)
            for start in range(block, min(block + BLOCK, count), LANES):
                line = values[start : min(start + LANES, count)]
                sums[: len(line)] += line * line
            by_hand += sums
        assert np.array_equal(found, by_hand)


@pytest.mark.parametrize(("dtype", "flushed"), [("F32", 0), ("F16", 3), ("BF16", 2)])
def test_values_that_became_0_are_counted_but_not_those_that_were(dtype: str, flushed: int) -> None:
    exact = np.array([0.0, -0.0, 1e-44, -1e-44, 1e-9, 1.0], np.float32)
    chunk = _chunk(exact, exact, dtype)
    assert blend_chunk(chunk, Recipe.of((0.0,)), Scratch()).flushed == flushed
    back = kernel.to_floats(dtype, chunk.out.words)
    assert np.signbit(back).tolist() == [False, True, False, True, False, False]
    assert back[5] == 1.0


def test_all_values_of_both_halves_as_an_error_shows_them() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    for dtype, wide in (("BF16", torch.bfloat16), ("F16", torch.float16)):
        wanted = torch.from_numpy(halves.view(np.int16)).view(wide).float().numpy()
        assert np.array_equal(kernel.to_floats(dtype, halves), wanted, equal_nan=True)
