"""Two models on the same items: which differences are more than luck."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.recipe.base import keyed_hash

DRAWS = 4999
"""Random patterns of signs; the smallest p-value is 1 / (1 + DRAWS)."""
EXACT_ITEMS = 12
"""Up to so many differing items all 2^N patterns are counted: no more than are drawn otherwise."""
_SCALE = 1 << 40


@dataclass(frozen=True)
class Compared:
    """Second minus first, over the same items."""

    difference: float
    p_value: float
    """Two-sided: probability of a difference as large if the two models were equally good."""
    test: str
    higher: int
    """Items on which the second scores higher: better or worse, as the metric goes."""
    lower: int


def compare(first: Sequence[float], second: Sequence[float], *key: object) -> Compared:
    """Compare two models' scores of the same items.

    Right-or-wrong items: McNemar's exact test (binomial over the items on which the two differ). Other scores: the
    paired permutation test of the mean difference, which flips signs.

    Args:
        first: scores of one model, in the order of the items; as many as `second`, at least one.
        second: scores of the other model.
        key: what random signs depend on, and nothing else.
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    higher, lower = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    mean = math.fsum(differences) / len(differences)
    if {*first, *second} <= {0.0, 1.0}:
        return Compared(mean, mcnemar(higher, lower), "McNemar", higher, lower)
    return Compared(mean, sign_flip(differences, *key), "sign flip", higher, lower)


def mcnemar(higher: int, lower: int) -> float:
    """Return the exact two-sided p-value of `higher` against `lower`, each with probability one half.

    Source:
        Q. McNemar, Psychometrika 12 (1947), 153-157; the exact binomial form.
    """
    total = higher + lower
    term, tail = 1, 0
    for k in range(min(higher, lower) + 1):
        tail += term
        term = term * (total - k) // (k + 1)
    return min(1.0, float(2 * tail / (1 << total))) if total else 1.0


def sign_flip(differences: Sequence[float], *key: object) -> float:
    """Return the two-sided p-value of a mean difference: a paired permutation test.

    If the two models are equally good, each item's difference could as well have the other sign. The p-value is the
    share of patterns of signs whose sum is at least as far from zero as the one found: of all patterns where they are
    few, else of DRAWS drawn ones and the one found, (1 + count) / (1 + DRAWS). Unlike a bootstrap it holds its level
    for few items too. The random bits are one SHAKE-256 stream: the same on every machine and in every version.

    Args:
        differences: one an item; those of zero have no sign to flip.
        key: what the random bits depend on, and nothing else.

    Source:
        R. A. Fisher, The Design of Experiments (1935), section 21; M. Dwass, Annals of Mathematical Statistics 28
        (1957), 181-187.
    """
    largest = max(map(abs, differences), default=0.0)
    # Whole numbers: their sums have no order, so that every machine counts the same.
    units = [round(d / largest * _SCALE) for d in differences if d] if largest else []
    size = (len(units) + 7) // 8
    if len(units) <= EXACT_ITEMS:
        draws, stream = 1 << len(units), b"".join(i.to_bytes(size, "little") for i in range(1 << len(units)))
    else:
        draws, stream = DRAWS, hashlib.shake_256(str(keyed_hash("sign flip", *key)).encode()).digest(size * DRAWS)
    tables = [_subset_sums(units[i : i + 8]) for i in range(0, len(units), 8)]
    total = sum(units)
    # Rounding to whole numbers moves a sum by less than one an item: it must not turn a tie into less.
    least = abs(total) - len(units)
    count = 0
    for start in range(0, size * draws, size) if size else ():
        flipped = sum(table[byte] for table, byte in zip(tables, stream[start : start + size], strict=True))
        count += abs(total - 2 * flipped) >= least
    if not units:
        return 1.0
    return count / draws if len(units) <= EXACT_ITEMS else (1 + count) / (1 + draws)


def _subset_sums(units: Sequence[int]) -> list[int]:
    """Return the sum of those of at most 8 numbers that each byte's bits choose; bits beyond them choose nothing."""
    sums = [0]
    for unit in [*units, *[0] * (8 - len(units))]:
        sums += [value + unit for value in sums]
    return sums
