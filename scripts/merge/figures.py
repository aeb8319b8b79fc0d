"""Distances of a merged tensor from both parents, from sums of squares.

Sums arrive per chunk, in order, as [5, LANES] float64 (see `arithmetic.ROWS`): the same additions in the same order
for any number of threads and any shard size.
"""

import math

import numpy as np
from numpy.typing import NDArray

from scripts.merge.arithmetic import ROWS, Part
from scripts.merge.kernel import LANES


class Distances:
    """Running sums of one tensor. Rows that only the first model has are kept apart: they have no second parent."""

    def __init__(self) -> None:
        self._paired: NDArray[np.float64] = np.zeros((len(ROWS), LANES))
        self._alone: NDArray[np.float64] = np.zeros((len(ROWS), LANES))
        self.overflowed = 0
        self.flushed = 0

    def add(self, part: Part) -> None:
        """Add one chunk's result; call in the order of the chunks."""
        with np.errstate(over="ignore", invalid="ignore"):
            if part.paired:
                self._paired += part.sums
            else:
                self._alone += part.sums
        self.overflowed += part.overflowed
        self.flushed += part.flushed

    def figures(self) -> dict[str, float | None]:
        """Return norms of output - first and output - second, and cosines, to 9 significant digits.

        None where a figure does not exist: a norm of 0, an overflowed output, or NaN in a model that is not used.
        """
        paired, alone = (dict(zip(ROWS, map(_total, sums), strict=True)) for sums in (self._paired, self._alone))
        both = {row: paired[row] + alone[row] for row in ROWS}
        return {
            "norm_c_minus_a": _rounded(math.sqrt(both["ca"])),
            "norm_c_minus_b": _rounded(math.sqrt(paired["cb"])),
            "cosine_a": _rounded(_cosine(both["cc"], both["aa"], both["ca"])),
            "cosine_b": _rounded(_cosine(paired["cc"], paired["bb"], paired["cb"])),
        }


def _total(lanes: NDArray[np.float64]) -> float:
    values = lanes.tolist()
    return math.fsum(values) if all(map(math.isfinite, values)) else math.nan


def _cosine(xx: float, yy: float, difference: float) -> float:
    """Return the cosine of x and y from |x|^2, |y|^2 and |x - y|^2.

    1 - (|x - y|^2 - (|x| - |y|)^2) / (2 |x| |y|): parents are close, so that the plain quotient would lose the digits
    that matter (1 - cosine is about 5e-5 for a relative distance of 1 %).
    """
    product = math.sqrt(xx) * math.sqrt(yy)
    if not product > 0.0 or math.isnan(difference):
        return math.nan
    gap = difference - (math.sqrt(xx) - math.sqrt(yy)) ** 2
    return max(-1.0, min(1.0, 1.0 - gap / (2.0 * product)))


def _rounded(value: float) -> float | None:
    return float(f"{value:.9g}") if math.isfinite(value) else None


def slerp_weights(distances: "Distances", ratio: float) -> tuple[float, float]:
    """Return the weights of both models on the arc between them, from sums taken with the second as output.

    Above a cosine of 0.9995 the arc is as good as its chord, and the plain weights are used, as mergekit does.
    """
    found = distances.figures()["cosine_a"]
    cosine = 1.0 if found is None else found
    if abs(cosine) > 0.9995:
        return 1.0 - ratio, ratio
    angle = math.acos(cosine)
    return math.sin((1.0 - ratio) * angle) / math.sin(angle), math.sin(ratio * angle) / math.sin(angle)
