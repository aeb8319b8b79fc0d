"""The blend itself, block by block, and the sums behind the distance figures.

Arithmetic of the original script: both inputs in fp32, r and 1 - r each rounded to fp32, two products, a sum (no
fused multiply-add), one rounding to the output type.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scripts.artifact.stage import StageError
from scripts.merge.kernel import (
    LANES,
    Floats,
    Halves,
    Words,
    add_squares,
    blend,
    round_bf16,
    round_f16,
    widen_bf16,
    widen_f16,
)

BLOCK = 1 << 16
"""Elements blended at once: three fp32 rows of it (0.8 MB) stay in the L2 cache, and calls cost little beside it."""
ROWS = ("cc", "aa", "bb", "ca", "cb")
"""Sums kept for each tensor: squares of output, first, second, output - first, output - second."""

Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """What one tensor's blocks go through: start from a model, then blend the second in, step by step."""

    from_second: bool
    steps: tuple[tuple[np.float32, np.float32], ...]

    @classmethod
    def of(cls, ratios: tuple[float, ...]) -> "Recipe":
        """Return the steps of a list of ratios. Ratio 0 does nothing and ratio 1 starts again from the second model:
        both are copies, so a -0 stays -0 and no 0 x NaN arises."""
        last = max((i for i, r in enumerate(ratios) if r == 1.0), default=-1)
        steps = tuple((np.float32(1.0 - r), np.float32(r)) for r in ratios[last + 1 :] if r != 0.0)
        return cls(last >= 0, steps)

    @classmethod
    def weighted(cls, first: float, second: float) -> "Recipe":
        """Return one step with weights of its own (slerp)."""
        return cls(False, ((np.float32(first), np.float32(second)),))

    @property
    def uses_first(self) -> bool:
        """Whether the first model's values reach the output."""
        return not self.from_second

    @property
    def uses_second(self) -> bool:
        """Whether the second model's values reach the output."""
        return self.from_second or bool(self.steps)


@dataclass
class Part:
    """Result of one chunk."""

    sums: Sums
    """[5, LANES] float64: see ROWS."""
    paired: bool
    """Whether the second model has these elements."""
    overflowed: int = 0
    flushed: int = 0


@dataclass
class Scratch:
    """Buffers of one worker, reused for every block: fresh memory costs a page fault each 4 KiB."""

    rows: Floats = field(default_factory=lambda: np.zeros((3, BLOCK), np.float32))
    sums: Floats = field(default_factory=lambda: np.zeros((len(ROWS), LANES), np.float32))


@dataclass(frozen=True)
class Values:
    """Elements in a format of a header (F32, F16, BF16), as words of that size `[count]`."""

    dtype: str
    words: Halves | Words

    def floats(self, span: slice, room: Floats) -> Floats:
        """Return elements as fp32, in `room` unless they lie there as such already."""
        part = self.words[span]
        if self.dtype == "F32":
            return part.view(np.float32)
        widen = widen_bf16 if self.dtype == "BF16" else widen_f16
        widen(part, room[: len(part)].view(np.uint32))  # type: ignore[arg-type]
        return room[: len(part)]

    def fill(self, span: slice, exact: Floats) -> int:
        """Round fp32 values into elements and return how many became 0 that were not."""
        part = self.words[span]
        if self.dtype == "F32":
            part[...] = exact.view(np.uint32)
            return 0
        narrow = round_bf16 if self.dtype == "BF16" else round_f16
        zeros = narrow(exact.view(np.uint32), part)  # type: ignore[arg-type]
        return zeros - (exact.size - int(np.count_nonzero(exact))) if zeros else 0


@dataclass(frozen=True)
class Chunk:
    """Views of one chunk's elements: inputs as read, output to fill; `second` is None where there is no such row."""

    name: str
    offset: int
    """Index of the first element in the tensor."""
    first: Values
    second: Values | None
    out: Values


def blend_chunk(chunk: Chunk, recipe: Recipe, scratch: Scratch) -> Part:
    """Fill `chunk.out` and return its sums.

    Raises:
        StageError: NaN or infinity in an input that reaches the output, with tensor, model and index.
    """
    part = Part(np.zeros((len(ROWS), LANES)), chunk.second is not None)
    size = len(chunk.first.words)
    for start in range(0, size, BLOCK):
        _blend_block(chunk, slice(start, min(start + BLOCK, size)), recipe, scratch, part)
    if chunk.second is None:
        part.sums[ROWS.index("cb")] = 0.0
    if not np.isfinite(part.sums).all():
        _explain(chunk, recipe, part)
    return part


def _blend_block(chunk: Chunk, span: slice, recipe: Recipe, scratch: Scratch, part: Part) -> None:
    a = chunk.first.floats(span, scratch.rows[0])
    if chunk.second is None:
        b = scratch.rows[1, : len(a)]
        b[...] = 0.0
    else:
        b = chunk.second.floats(span, scratch.rows[1])
    exact, room = (b if recipe.from_second and chunk.second is not None else a), scratch.rows[2, : len(a)]
    for own, share in recipe.steps if chunk.second is not None else ():
        blend(exact, b, own, share, room)
        exact = room
    # Without a step this is a copy: each format's own values go to fp32 and back without a change.
    part.flushed += chunk.out.fill(span, exact)
    scratch.sums[...] = 0.0
    add_squares(chunk.out.floats(span, scratch.rows[2]), a, b, scratch.sums)
    part.sums += scratch.sums


def _explain(chunk: Chunk, recipe: Recipe, part: Part) -> None:
    """A sum is not finite: name the bad input, or count what overflowed and sum again in float64."""
    size = len(chunk.first.words)
    c, a, b = (_whole(values, size) for values in (chunk.out, chunk.first, chunk.second))
    for label, used, values in (
        ("first", recipe.uses_first or chunk.second is None, a),
        ("second", recipe.uses_second, b),
    ):
        bad = ~np.isfinite(values)
        if used and bad.any():
            index = int(bad.argmax())
            raise StageError(
                f"tensor {chunk.name!r} of the {label} model holds {float(values[index])} at element "
                f"{chunk.offset + index:,} (counted row by row); a merge would spread it, mend the model"
            )
    part.overflowed = int(np.count_nonzero(~np.isfinite(c)))
    part.sums[:] = 0.0
    wide = [values.astype(np.float64) for values in (c, a, b)]
    with np.errstate(over="ignore", invalid="ignore"):
        away = np.zeros(size) if chunk.second is None else wide[0] - wide[2]
        for row, values64 in enumerate((*wide, wide[0] - wide[1], away)):
            squares = np.zeros(-(-size // LANES) * LANES)
            squares[:size] = values64 * values64
            part.sums[row] = np.add.reduce(squares.reshape(-1, LANES), axis=0)


def _whole(values: Values | None, size: int) -> Floats:
    room = np.zeros(size, np.float32)
    return room if values is None else values.floats(slice(None), room)
