"""The blend itself, chunk by chunk, and the sums behind the distance figures.

Arithmetic of the original script: both inputs in fp32, r and 1 - r each rounded to fp32, two products, a sum (no
fused multiply-add), one rounding to the output type.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scripts.artifact.stage import StageError
from scripts.merge.kernel import GROUP, LANES, TYPES, Floats, Halves, Words, blend_words, to_floats

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
    """Buffers of one worker: three groups of lines of elements, and the fp32 sums of a block."""

    lines: Floats = field(default_factory=lambda: np.zeros((3, GROUP * LANES), np.float32))
    sums: Floats = field(default_factory=lambda: np.zeros((len(ROWS), LANES), np.float32))


@dataclass(frozen=True)
class Values:
    """Elements in a format of a header (F32, F16, BF16), as words of that size `[count]`."""

    dtype: str
    words: Halves | Words


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
    first, second, out = (v.words.view(TYPES[v.dtype]) for v in (chunk.first, chunk.second or chunk.first, chunk.out))
    steps = np.array(recipe.steps, np.float32).reshape(-1, 2)
    scratches = (scratch.lines, scratch.sums, part.sums)
    part.flushed = blend_words(first, second, out, part.paired, recipe.from_second, steps, *scratches)
    if not part.paired:
        part.sums[[ROWS.index("bb"), ROWS.index("cb")]] = 0.0
    if not np.isfinite(part.sums).all():
        _explain(chunk, recipe, part)
    return part


def _explain(chunk: Chunk, recipe: Recipe, part: Part) -> None:
    """A sum is not finite: name the bad input, or count what overflowed and sum again in float64."""
    size = len(chunk.first.words)
    c, a, b = (
        np.zeros(size, np.float32) if values is None else to_floats(values.dtype, values.words)
        for values in (chunk.out, chunk.first, chunk.second)
    )
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
