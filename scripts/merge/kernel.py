"""The blend, compiled: formats to fp32, blended, rounded, and the sums behind the figures, in one pass over memory.

Each operation is exact or rounds once, to nearest and even; numba fuses no multiply-add unless asked to. So any
processor gives the same bits, and tests/unit/test_merge_kernel.py holds them against torch and numpy. A line of LANES
elements goes through all steps while it lies in the L1 cache. Blocks of 65,536, each step a call of torch or numpy,
took three times as long (and suffered most from busy neighbours); to import torch takes as long as compiling this.
"""

import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

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
BLOCK = 1 << 16
"""Elements whose squares are added up in fp32 before they go into a float64 sum."""
SUMS = 5
"""Squares of output, first, second, output - first, output - second."""

_SIGN, _SIZE = np.uint32(1 << 31), np.uint32((1 << 31) - 1)
_ONE, _SIXTEEN, _THIRTEEN = np.uint32(1), np.uint32(16), np.uint32(13)
_INFINITY = np.uint32(255 << 23)
_REBIAS = np.uint32((127 - 15) << 23)  # from fp16's exponents to fp32's
_TINY, _HUGE = np.uint32((127 - 14) << 23), np.uint32((127 + 16) << 23)  # smallest normal fp16; first power beyond it
_STEP = np.float32(2.0**-24)  # of fp16 below 2**-14
_HALF = np.uint32(126 << 23)  # 0.5 as fp32: from there to 1, fp32's own step is 2**-24


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """Compile as a part of `chunk_kernel`'s function, not to be called from Python: that saves a third of the time.

    numba's cache on disk is off: it would outlive the code it came from, and is read by pickle.
    """
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
    zeros = 0
    for i in range(len(words)):
        word = words[i]
        rounded = np.uint32(word + np.uint32(0x7FFF) + (np.uint32(word >> _SIXTEEN) & _ONE)) >> _SIXTEEN
        half = rounded if (word & _SIZE) <= _INFINITY else np.uint32(0x7FC0)
        halves[i] = half
        zeros += (half & np.uint32(0x7FFF)) == 0
    return zeros


@inner
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


@inner
def copy(values: Words, out: Words) -> int:  # pragma: no cover - compiled
    """Copy fp32 values and return how many are 0. (A slice assignment takes longer to compile.)"""
    zeros = 0
    for i in range(len(out)):
        out[i] = values[i]
        zeros += (values[i] & _SIZE) == 0
    return zeros


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
    zeros = 0
    for i in range(len(values)):
        values[i] = values[i] * own + other[i] * share
        zeros += values[i] == 0
    return zeros


@inner
def add_squares(c: Floats, a: Floats, b: Floats, sums: Floats) -> None:  # pragma: no cover - compiled
    """Add the squares of c, a, b, c - a and c - b, each `[count]`, to the rows of `sums` `[SUMS, LANES]`."""
    cc, aa, bb, ca, cb = sums[0], sums[1], sums[2], sums[3], sums[4]
    for i in range(len(c)):
        cc[i] += c[i] * c[i]
        aa[i] += a[i] * a[i]
        bb[i] += b[i] * b[i]
        ca[i] += (c[i] - a[i]) * (c[i] - a[i])
        cb[i] += (c[i] - b[i]) * (c[i] - b[i])


WIDEN: dict[str, Callable[..., object]] = {"F32": copy, "F16": widen_f16, "BF16": widen_bf16}
ROUND: dict[str, Callable[..., int]] = {"F32": copy, "F16": round_f16, "BF16": round_bf16}


def to_floats(dtype: str, words: Halves | Words) -> Floats:
    """Return elements of a format as fp32, without compiling anything: for the one chunk that an error is about."""
    if dtype == "F32":
        return words.view(np.float32)
    if dtype == "F16":
        return words.view(np.float16).astype(np.float32)
    return (words.astype(np.uint32) << _SIXTEEN).view(np.float32)


Kernel = Callable[[Any, Any, Any, bool, bool, Floats, Floats, Floats, NDArray[np.float64]], int]
_kernels: dict[tuple[str, str, str], Kernel] = {}
_making = threading.Lock()


def chunk_kernel(first: str, second: str, out: str) -> Kernel:
    """Return the function that blends a chunk of these formats (F32, F16, BF16); compiled on first use, about 1.5 s.

    Its arguments: first, second and out as words of their formats `[count]`; whether the second model has these
    elements (else the first's are taken); whether to start from the second; steps `[steps, 2]`, the weights of what is
    there and of the second; scratch `[3, LANES]`; sums `[SUMS, LANES]` of fp32 and of float64, the latter added to.
    It returns how many elements that were not 0 became 0 by the last rounding.
    """
    with _making:
        if (first, second, out) not in _kernels:
            _kernels[first, second, out] = _make(WIDEN[first], WIDEN[second], WIDEN[out], ROUND[out])
        return _kernels[first, second, out]


def _make(
    widen_a: Callable[..., object],
    widen_b: Callable[..., object],
    widen_c: Callable[..., object],
    round_c: Callable[..., int],
) -> Kernel:
    def run(
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
        flushed, words = 0, lines.view(np.uint32)
        for start in range(0, len(out), LANES):
            stop = min(start + LANES, len(out))
            a, b, c = lines[0][: stop - start], lines[1][: stop - start], lines[2][: stop - start]
            words_a, words_b, words_c = words[0][: stop - start], words[1][: stop - start], words[2][: stop - start]
            if start % BLOCK == 0:
                flush(partial, sums)
            widen_a(first[start:stop], words_a)
            if paired:
                widen_b(second[start:stop], words_b)
            zeros = copy(words_b if paired and from_second else words_a, words_c)
            for step in range(len(steps) if paired else 0):
                zeros = blend(c, b, steps[step, 0], steps[step, 1])
            # Without a step this is a copy: each format's own values go to fp32 and back without a change.
            flushed += round_c(words_c, out[start:stop]) - zeros
            widen_c(out[start:stop], words_c)
            add_squares(c, a, b, partial)
        flush(partial, sums)
        return flushed

    kernel: Kernel = njit(nogil=True)(run)
    return kernel
