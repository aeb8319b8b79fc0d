"""Compiled loops of the blend: formats to fp32 and back, one blend, and the sums behind the figures.

Each operation is exact or rounds once, to nearest and even; numba fuses no multiply-add unless asked to. So any
processor gives the same bits, and tests/unit/test_merge_kernel.py holds them against torch and numpy. Passes of torch
and numpy took 6.5 ns an element, these 1.5; to compile them takes less than to import torch.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")
Halves = NDArray[np.uint16]
Words = NDArray[np.uint32]
Floats = NDArray[np.float32]

LANES = 1 << 9
"""Columns that are summed side by side: partial sums that no vector width and no thread count can reorder."""

_SIGN, _SIZE = np.uint32(1 << 31), np.uint32((1 << 31) - 1)
_ONE, _SIXTEEN, _THIRTEEN = np.uint32(1), np.uint32(16), np.uint32(13)
_INFINITY = np.uint32(255 << 23)
_REBIAS = np.uint32((127 - 15) << 23)  # from fp16's exponents to fp32's
_TINY, _HUGE = np.uint32((127 - 14) << 23), np.uint32((127 + 16) << 23)  # smallest normal fp16; first power beyond it
_STEP = np.float32(2.0**-24)  # of fp16 below 2**-14
_HALF = np.uint32(126 << 23)  # 0.5 as fp32: from there to 1, fp32's own step is 2**-24


def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on first use; numba's cache on disk is off, it would outlive the code it came from."""
    result: Callable[P, R] = njit(nogil=True)(function)
    return result


@_compiled
def widen_bf16(halves: Halves, words: Words) -> None:  # pragma: no cover - compiled
    """Fill `words` with the fp32 values of bf16 `halves`, both `[count]`."""
    for i in range(len(words)):
        words[i] = np.uint32(halves[i]) << _SIXTEEN


@_compiled
def widen_f16(halves: Halves, words: Words) -> None:  # pragma: no cover - compiled
    """As `widen_bf16`, from fp16."""
    for i in range(len(words)):
        half = np.uint32(halves[i])
        size = half & np.uint32(0x7FFF)
        normal = np.uint32(size << _THIRTEEN) + _REBIAS
        found = normal if size < np.uint32(0x7C00) else np.uint32(normal + _REBIAS)  # infinity and NaN stay such
        small = np.float32(np.float32(np.int32(size)) * _STEP).view(np.uint32)
        found = small if size < np.uint32(0x0400) else found
        words[i] = found | np.uint32((half & np.uint32(0x8000)) << _SIXTEEN)


@_compiled
def round_bf16(words: Words, halves: Halves) -> int:  # pragma: no cover - compiled
    """Round fp32 values to bf16 and return how many of the results are 0."""
    zeros = 0
    for i in range(len(words)):
        word = words[i]
        rounded = np.uint32(word + np.uint32(0x7FFF) + (np.uint32(word >> _SIXTEEN) & _ONE)) >> _SIXTEEN
        half = rounded if (word & _SIZE) <= _INFINITY else np.uint32(0x7FC0)
        halves[i] = half
        zeros += (half & np.uint32(0x7FFF)) == 0
    return zeros


@_compiled
def round_f16(words: Words, halves: Halves) -> int:  # pragma: no cover - compiled
    """As `round_bf16`, to fp16; from 65,520 on the result is infinity."""
    zeros = 0
    for i in range(len(words)):
        size = words[i] & _SIZE
        odd = np.uint32(size >> _THIRTEEN) & _ONE
        normal = np.uint32(np.uint32(size - _REBIAS) + np.uint32(0x0FFF) + odd) >> _THIRTEEN
        high = np.uint32(0x7C00) if size <= _INFINITY else np.uint32(0x7E00)
        # Added to 0.5, a small value is rounded by the processor to a whole number of fp16's steps.
        raised = np.float32(np.uint32(size).view(np.float32) + np.float32(0.5)).view(np.uint32)
        half = normal if size < _HUGE else high
        half = np.uint32(raised - _HALF) if size < _TINY else half
        halves[i] = half | np.uint32((words[i] & _SIGN) >> _SIXTEEN)
        zeros += half == 0
    return zeros


@_compiled
def blend(begin: Floats, other: Floats, own: np.float32, share: np.float32, out: Floats) -> None:  # pragma: no cover
    """Fill `out` with own * begin + share * other: both products and the sum rounded to fp32; `out` may be `begin`."""
    for i in range(len(out)):
        out[i] = begin[i] * own + other[i] * share


@_compiled
def add_squares(c: Floats, a: Floats, b: Floats, sums: Floats) -> None:  # pragma: no cover - compiled
    """Add the squares of c, a, b, c - a and c - b, each `[count]`, to the rows of `sums` `[5, LANES]`, line by line."""
    cc, aa, bb, ca, cb = sums[0], sums[1], sums[2], sums[3], sums[4]
    for start in range(0, len(c), LANES):
        x, y, z = c[start : start + LANES], a[start : start + LANES], b[start : start + LANES]
        for i in range(len(x)):
            cc[i] += x[i] * x[i]
            aa[i] += y[i] * y[i]
            bb[i] += z[i] * z[i]
            ca[i] += (x[i] - y[i]) * (x[i] - y[i])
            cb[i] += (x[i] - z[i]) * (x[i] - z[i])
