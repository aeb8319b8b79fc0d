"""The blend, compiled: formats to fp32, blended, rounded, and the sums behind the figures, in one pass over memory.

Each operation is exact or rounds once, to nearest and even; numba fuses no multiply-add unless asked to. So any
processor gives the same bits, and tests/unit/test_merge_kernel.py holds them against torch and numpy. GROUP lines of
LANES elements go through all steps while they lie in the L1 cache. Blocks of 65,536, each step a call of torch or
numpy, took five times as long (and suffered most from busy neighbours); to import torch takes as long as compiling it.

What made the loops twice as fast: counts of 32 bits, as wide as what is counted (numba's own are 64), and sums that are
loaded and stored once for GROUP lines.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

from scripts.recipe.compiled import compiled

P = ParamSpec("P")
R = TypeVar("R")
Halves = NDArray[np.uint16]
Words = NDArray[np.uint32]
Floats = NDArray[np.float32]

LANES = 1 << 9
"""Columns that are summed side by side: partial sums that no vector width and no thread count can reorder."""
GROUP = 4
"""Lines at a time: with their sums 34 KiB, within the smallest L1 caches of today (32 KiB with some loss)."""
BLOCK = 1 << 16
"""Elements whose squares are added up in fp32 before they go into a float64 sum."""
SUMS = 5
"""Squares of output, first, second, output - first, output - second."""

_SIGN, _SIZE = np.uint32(1 << 31), np.uint32((1 << 31) - 1)
_NONE, _ONE, _SIXTEEN, _THIRTEEN = np.uint32(0), np.uint32(1), np.uint32(16), np.uint32(13)
_INFINITY = np.uint32(255 << 23)
_REBIAS = np.uint32((127 - 15) << 23)  # from fp16's exponents to fp32's
_TINY, _HUGE = np.uint32((127 - 14) << 23), np.uint32((127 + 16) << 23)  # smallest normal fp16; first power beyond it
_STEP = np.float32(2.0**-24)  # of fp16 below 2**-14
_HALF = np.uint32(126 << 23)  # 0.5 as fp32: from there to 1, fp32's own step is 2**-24


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """Compile as a part of `blend_words`, not to be called from Python: that saves a third of the time."""
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    result: Callable[P, R] = njit(nogil=True, **options)(function)
    return result


@inner
def widen_bf16(halves: Halves, words: Words) -> None:  # pragma: no cover - compiled
    """Fill `words` with the fp32 values of bf16 `halves`, both `[count]`."""
    for i in range(len(words)):
        words[i] = np.uint32(halves[i]) << _SIXTEEN


@inner
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


@inner
def round_bf16(words: Words, halves: Halves) -> int:  # pragma: no cover - compiled
    """Round fp32 values to bf16 and return how many of the results are 0."""
    zeros = _NONE
    for i in range(len(words)):
        word = words[i]
        even = np.uint32(word + np.uint32(0x7FFF) + np.uint32(np.uint32(word >> _SIXTEEN) & _ONE))
        half = np.uint32(even >> _SIXTEEN) if (word & _SIZE) <= _INFINITY else np.uint32(0x7FC0)
        halves[i] = half
        zeros = np.uint32(zeros + (_ONE if (half & np.uint32(0x7FFF)) == _NONE else _NONE))
    return int(zeros)


@inner
def round_f16(words: Words, halves: Halves) -> int:  # pragma: no cover - compiled
    """As `round_bf16`, to fp16; from 65,520 on the result is infinity."""
    zeros = _NONE
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
        zeros = np.uint32(zeros + (_ONE if half == _NONE else _NONE))
    return int(zeros)


@inner
def copy(values: Words, out: Words) -> int:  # pragma: no cover - compiled
    """Copy fp32 values and return how many are 0. (A slice assignment takes longer to compile.)"""
    zeros = _NONE
    for i in range(len(out)):
        word = values[i]
        out[i] = word
        zeros = np.uint32(zeros + (_ONE if (word & _SIZE) == _NONE else _NONE))
    return int(zeros)


def widen(elements: Halves | Words, words: Words) -> int:
    """Fill `words` with the fp32 values of `elements`, both `[count]`: uint32 are fp32, int16 fp16, uint16 bf16."""
    raise TypeError("only compiled code calls this: numba puts one of the functions above in its place")


def narrow(words: Words, elements: Halves | Words) -> int:
    """The way back; return how many of the results are 0."""
    raise TypeError("as above")


WIDEN: dict[Any, Callable[..., Any]] = {types.uint32: copy, types.int16: widen_f16, types.uint16: widen_bf16}
NARROW: dict[Any, Callable[..., Any]] = {types.uint32: copy, types.int16: round_f16, types.uint16: round_bf16}


@overload(widen, strict=False)
def _widen(elements: Any, words: Any) -> Callable[..., Any]:
    function = WIDEN[elements.dtype]
    return lambda elements, words: function(elements, words)


@overload(narrow, strict=False)
def _narrow(words: Any, elements: Any) -> Callable[..., Any]:
    function = NARROW[elements.dtype]
    return lambda words, elements: function(words, elements)


@inner
def flush(partial: Floats, sums: NDArray[np.float64]) -> None:  # pragma: no cover - compiled
    """Add `partial` to `sums`, both `[SUMS, LANES]`, and make it 0."""
    for row in range(SUMS):
        low, high = partial[row], sums[row]
        for i in range(LANES):
            high[i] += np.float64(low[i])
            low[i] = np.float32(0)


@inner
def blend(values: Floats, other: Floats, own: np.float32, share: np.float32) -> int:  # pragma: no cover - compiled
    """Turn `values` into own * values + share * other, both products and the sum rounded; return how many are 0."""
    zeros = _NONE
    for i in range(len(values)):
        value = values[i] * own + other[i] * share
        values[i] = value
        zeros = np.uint32(zeros + (_ONE if value == np.float32(0) else _NONE))
    return int(zeros)


@inner
def add_squares(c: Floats, a: Floats, b: Floats, sums: Floats) -> None:  # pragma: no cover - compiled
    """Add the squares of c, a, b, c - a and c - b, each `[at most LANES]`, to the rows of `sums` `[SUMS, LANES]`."""
    cc, aa, bb, ca, cb = sums[0], sums[1], sums[2], sums[3], sums[4]
    for i in range(len(c)):
        cc[i] += c[i] * c[i]
        aa[i] += a[i] * a[i]
        bb[i] += b[i] * b[i]
        ca[i] += (c[i] - a[i]) * (c[i] - a[i])
        cb[i] += (c[i] - b[i]) * (c[i] - b[i])


@inner
def add_squares_of_group(c: Floats, a: Floats, b: Floats, sums: Floats) -> None:  # pragma: no cover - compiled
    """As `add_squares` of GROUP lines one after the other: the same additions in the same order."""
    cc, aa, bb, ca, cb = sums[0], sums[1], sums[2], sums[3], sums[4]
    for i in range(LANES):
        j, k, n = i + LANES, i + 2 * LANES, i + 3 * LANES
        cc[i] = (((cc[i] + c[i] * c[i]) + c[j] * c[j]) + c[k] * c[k]) + c[n] * c[n]
        aa[i] = (((aa[i] + a[i] * a[i]) + a[j] * a[j]) + a[k] * a[k]) + a[n] * a[n]
        bb[i] = (((bb[i] + b[i] * b[i]) + b[j] * b[j]) + b[k] * b[k]) + b[n] * b[n]
        p, q, r, s = c[i] - a[i], c[j] - a[j], c[k] - a[k], c[n] - a[n]
        ca[i] = (((ca[i] + p * p) + q * q) + r * r) + s * s
        p, q, r, s = c[i] - b[i], c[j] - b[j], c[k] - b[k], c[n] - b[n]
        cb[i] = (((cb[i] + p * p) + q * q) + r * r) + s * s


def to_floats(dtype: str, words: Halves | Words) -> Floats:
    """Return elements of a format as fp32, without compiling anything: for the one chunk that an error is about."""
    if dtype == "F32":
        return words.view(np.float32)
    if dtype == "F16":
        return words.view(np.float16).astype(np.float32)
    return (words.astype(np.uint32) << _SIXTEEN).view(np.float32)


TYPES = {"F32": np.uint32, "F16": np.int16, "BF16": np.uint16}
"""What `blend_words` takes for the words of a format: it is compiled for those that come."""


@compiled
def blend_words(
    first: Any,
    second: Any,
    out: Any,
    paired: bool,
    from_second: bool,
    steps: Floats,
    lines: Floats,
    partial: Floats,
    sums: NDArray[np.float64],
) -> int:  # pragma: no cover - compiled
    """Blend a chunk; compiled on first use in about 2 s, or read from where `keep_compiled` says.

    Args:
        first, second, out: words of TYPES `[count]`.
        paired: whether the second model has these elements (else the first's are taken).
        from_second: whether to start from the second.
        steps: `[steps, 2]`, the weights of what is there and of the second.
        lines: scratch `[3, GROUP * LANES]`.
        partial: scratch `[SUMS, LANES]`, all 0.
        sums: `[SUMS, LANES]`, added to.

    Returns:
        How many elements that were not 0 became 0 by the last rounding.
    """
    flushed, words = 0, lines.view(np.uint32)
    for start in range(0, len(out), GROUP * LANES):
        stop = min(start + GROUP * LANES, len(out))
        size = stop - start
        a, b, c = lines[0][:size], lines[1][:size], lines[2][:size]
        words_a, words_b, words_c = words[0][:size], words[1][:size], words[2][:size]
        if start % BLOCK == 0:
            flush(partial, sums)
        widen(first[start:stop], words_a)
        if paired:
            widen(second[start:stop], words_b)
        zeros = copy(words_b if paired and from_second else words_a, words_c)
        for step in range(len(steps) if paired else 0):
            zeros = blend(c, b, steps[step, 0], steps[step, 1])
        # Without a step this is a copy: each format's own values go to fp32 and back without a change.
        flushed += narrow(words_c, out[start:stop]) - zeros
        widen(out[start:stop], words_c)
        if size == GROUP * LANES:
            add_squares_of_group(c, a, b, partial)
        else:
            for line in range(0, size, LANES):
                add_squares(c[line : line + LANES], a[line : line + LANES], b[line : line + LANES], partial)
    flush(partial, sums)
    return flushed
