"""The blend itself, block by block, and the sums behind the distance figures.

Arithmetic of the original script: both inputs in fp32, r and 1 - r each rounded to fp32, two products, a sum (no
fused multiply-add), one rounding to the output type. Formats are converted by torch, everything else is numpy.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from scripts.artifact.stage import StageError

BLOCK = 1 << 16
"""Elements blended at once: five fp32 rows of it (1.3 MB) stay in a 2 MB L2 cache, and calls cost little beside it."""
LANES = 1 << 9
"""Columns that are summed side by side: partial sums that no vector width and no thread count can reorder."""
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ROWS = ("cc", "aa", "bb", "ca", "cb")
"""Sums kept for each tensor: squares of output, first, second, output - first, output - second."""

Floats = NDArray[np.float32]
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

    rows: Floats = field(default_factory=lambda: np.zeros((5, BLOCK), np.float32))
    product: Floats = field(default_factory=lambda: np.empty(BLOCK, np.float32))


@dataclass(frozen=True)
class Chunk:
    """Views of one chunk's elements: inputs as read, output to fill; `second` is None where there is no such row."""

    name: str
    offset: int
    """Index of the first element in the tensor."""
    first: torch.Tensor
    second: torch.Tensor | None
    out: torch.Tensor


def blend_chunk(chunk: Chunk, recipe: Recipe, scratch: Scratch, figures: bool = True) -> Part:
    """Fill `chunk.out` and return its sums.

    Raises:
        StageError: NaN or infinity in an input that reaches the output, with tensor, model and index.
    """
    part = Part(np.zeros((len(ROWS), LANES)), chunk.second is not None)
    size = chunk.first.numel()
    with np.errstate(over="ignore", invalid="ignore"):  # looked at below, by name and index
        for start in range(0, size, BLOCK):
            _blend_block(chunk, slice(start, min(start + BLOCK, size)), recipe, scratch, part, figures)
    if not np.isfinite(part.sums).all():
        _explain(chunk, recipe, part)
    if not figures:
        part.sums[:] = 0.0
    return part


def _blend_block(chunk: Chunk, span: slice, recipe: Recipe, scratch: Scratch, part: Part, figures: bool) -> None:
    count = span.stop - span.start
    padded = -(-count // LANES) * LANES
    rows = scratch.rows[:, :padded]
    rows[:, count:] = 0.0
    c, a, b = rows[0, :count], rows[1, :count], rows[2, :count]
    torch.from_numpy(a).copy_(chunk.first[span])
    if chunk.second is None:
        b[...] = 0.0
    else:
        torch.from_numpy(b).copy_(chunk.second[span])
    out = chunk.out[span]
    steps = recipe.steps if chunk.second is not None else ()
    begin = b if recipe.from_second and chunk.second is not None else a
    if steps:
        product = scratch.product[:count]
        for own, other in steps:
            np.multiply(begin, own, out=c)
            np.multiply(b, other, out=product)
            np.add(c, product, out=c)
            begin = c
        out.copy_(torch.from_numpy(c))
    else:  # same format: bytes; another one: a cast
        source = chunk.second if begin is b else chunk.first
        assert source is not None
        out.copy_(source[span])
    part.flushed += _flushed(out, begin)
    if not figures:
        # Any NaN or infinity makes the sum one: one cheap pass is enough to look closer.
        part.sums[0] += np.add.reduce(rows[0].reshape(-1, LANES), axis=0) if steps else 0.0
        return
    torch.from_numpy(c).copy_(out)
    if chunk.second is None:
        rows[3:] = 0.0
        np.subtract(c, a, out=rows[3, :count])
    else:
        np.subtract(rows[0], rows[1:3], out=rows[3:])
    # Whole lines of LANES are squared and added one after another: 2.5 times as fast as squaring first, and the order
    # of additions is independent of the processor's vector width (tests/unit/test_merge_bits.py holds numpy to it).
    lines = rows.reshape(len(ROWS), -1, LANES)
    part.sums += np.einsum("rlc,rlc->rc", lines, lines)


def _flushed(out: torch.Tensor, exact: Floats) -> int:
    """Count values that became 0 by rounding. Zeros are rare in weights: mostly one cheap count decides."""
    if out.dtype == torch.float32:
        return 0
    magnitude = np.left_shift(out.view(torch.int16).numpy().view(np.uint16), 1)  # drops the sign: -0 is 0
    zeros = magnitude.size - int(np.count_nonzero(magnitude))
    return zeros - (exact.size - int(np.count_nonzero(exact))) if zeros else 0


def _explain(chunk: Chunk, recipe: Recipe, part: Part) -> None:
    """A sum is not finite: name the bad input, or count what overflowed and sum again in float64."""
    for label, used, values in (
        ("first", recipe.uses_first or chunk.second is None, chunk.first),
        ("second", recipe.uses_second, chunk.second),
    ):
        bad = torch.isfinite(values).logical_not().nonzero() if used and values is not None else None
        if bad is not None and len(bad) and values is not None:
            index = int(bad[0])
            raise StageError(
                f"tensor {chunk.name!r} of the {label} model holds {float(values[index])} at element "
                f"{chunk.offset + index:,} (counted row by row); a merge would spread it, mend the model"
            )
    c, a = chunk.out.double().numpy(), chunk.first.double().numpy()
    b = np.zeros_like(a) if chunk.second is None else chunk.second.double().numpy()
    part.overflowed = int(np.count_nonzero(~np.isfinite(c)))
    part.sums[:] = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for row, values64 in enumerate((c, a, b, c - a, np.zeros_like(c) if chunk.second is None else c - b)):
            squares = np.zeros(-(-c.size // LANES) * LANES)
            squares[: c.size] = values64 * values64
            part.sums[row] = np.add.reduce(squares.reshape(-1, LANES), axis=0)
