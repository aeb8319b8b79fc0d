"""What a benchmark figure is worth: items right, 95 % interval, distance from guessing."""

import math
from dataclasses import dataclass

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Judged:
    """One figure with its uncertainty; None where the data can't tell."""

    correct: int | None
    """Items right, where every item is simply right or wrong."""
    low: float | None
    high: float | None
    """Ends of the 95 % interval."""
    z: float | None
    """Standard deviations above guessing."""

    @property
    def at_chance(self) -> bool:
        """Whether guessing explains the figure (at the 5 % level)."""
        return self.z is not None and abs(self.z) < Z95


def judge(
    value: float,
    items: int,
    stderr: float | None,
    chance: float | None,
    binary: bool,
    variance: float | None = None,
) -> Judged:
    """Judge one metric.

    Args:
        value: the metric, a share.
        items: number of items N.
        stderr: standard error of `value`, if known.
        chance: expected value of guessing, if there is one.
        binary: each item is right or wrong, so that value * N must be an integer k.
        variance: variance of one guess, mean over items; makes z exact where items have different numbers of choices.
    """
    correct = whole_count(value, items) if binary else None
    if correct is not None:
        low, high = wilson(correct, items)
        return Judged(correct, low, high, z_of_count(correct, items, chance, variance))
    if stderr is None or stderr <= 0:
        return Judged(None, None, None, None)
    z = (value - chance) / stderr if chance is not None else None
    return Judged(None, value - Z95 * stderr, value + Z95 * stderr, z)


def whole_count(value: float, items: int) -> int | None:
    """Return k if `value` is k/N up to rounding of the printed value, else None."""
    if items <= 0 or not 0 <= value <= 1:
        return None
    count = round(value * items)
    # 1e-3 of an item: values are stored with at least 9 digits, and N stays below 100,000.
    return count if abs(value * items - count) < 1e-3 else None


def wilson(correct: int, items: int) -> tuple[float, float]:
    """Return the Wilson 95 % interval of k right out of N > 0: stays inside [0, 1], also at k = 0 and k = N.

    Source:
        E. B. Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    share, square = correct / items, Z95 * Z95
    middle = (share + square / (2 * items)) / (1 + square / items)
    half = Z95 / (1 + square / items) * math.sqrt(share * (1 - share) / items + square / (4 * items * items))
    return (0.0 if correct == 0 else middle - half), (1.0 if correct == items else middle + half)


def z_of_count(correct: int, items: int, chance: float | None, variance: float | None = None) -> float | None:
    """Return (k - sum of c_i) / sqrt(sum of c_i (1 - c_i)), c_i = 1 / number of choices of item i.

    Without `variance` (the mean of c_i (1 - c_i)) that of the mean chance stands in: where the number of choices
    differs between items it is larger (Jensen), so a figure is called better than guessing too rarely, not too often.
    """
    if chance is None or not 0 < chance < 1:
        return None
    spread = items * (chance * (1 - chance) if variance is None else variance)
    # Without spread every guess scores the same (all labels of an item equal): there is nothing to be better than.
    return (correct - items * chance) / math.sqrt(spread) if spread > 0 else None
