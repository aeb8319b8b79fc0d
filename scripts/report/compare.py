"""Two models on the same items: which differences are more than luck."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.recipe.base import keyed_hash

RESAMPLES = 1000


@dataclass(frozen=True)
class Compared:
    """Second minus first, over the same items."""

    difference: float
    p_value: float
    """Two-sided: probability of a difference as large if the two models were equally good."""
    test: str
    better: int
    """Items on which the second scores higher."""
    worse: int


def compare(first: Sequence[float], second: Sequence[float], *key: object) -> Compared:
    """Compare two models' scores of the same items.

    Right-or-wrong items: McNemar's exact test (binomial over the items on which the two differ). Other scores: paired
    bootstrap of the mean difference.

    Args:
        first: scores of one model, in the order of the items; as many as `second`, at least one.
        second: scores of the other model.
        key: what the bootstrap's random numbers depend on, and nothing else.
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    mean = math.fsum(differences) / len(differences)
    if {*first, *second} <= {0.0, 1.0}:
        return Compared(mean, mcnemar(better, worse), "McNemar", better, worse)
    return Compared(mean, _bootstrap(differences, *key), "bootstrap", better, worse)


def mcnemar(better: int, worse: int) -> float:
    """Return the exact two-sided p-value of `better` against `worse`, each with probability one half.

    Source:
        Q. McNemar, Psychometrika 12 (1947), 153-157; the exact binomial form.
    """
    total = better + worse
    term, tail = 1, 0
    for k in range(min(better, worse) + 1):
        tail += term
        term = term * (total - k) // (k + 1)
    return min(1.0, float(2 * tail / (1 << total))) if total else 1.0


def _bootstrap(differences: Sequence[float], *key: object) -> float:
    """Return twice the smaller share of resampled means on either side of zero, at least 1 / RESAMPLES.

    The random numbers are one SHAKE-256 stream: the same on every machine and for every library version.
    """
    count = len(differences)
    stream = hashlib.shake_256(str(keyed_hash("bootstrap", *key)).encode()).digest(4 * count * RESAMPLES)
    numbers = memoryview(stream).cast("I") if _LITTLE else _swapped(stream)
    below = above = 0
    for start in range(0, count * RESAMPLES, count):
        total = math.fsum(differences[number * count >> 32] for number in numbers[start : start + count])
        below += total <= 0
        above += total >= 0
    return max(1 / RESAMPLES, min(1.0, 2 * min(below, above) / RESAMPLES))


def _swapped(stream: bytes) -> Sequence[int]:
    return [int.from_bytes(stream[i : i + 4], "little") for i in range(0, len(stream), 4)]


_LITTLE = memoryview((1).to_bytes(4, "little")).cast("I")[0] == 1
