"""Whether guessing explains a benchmark figure: the report's rule (`scripts.report.judge`), for a release's tables."""

import math

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


def at_chance(
    value: float,
    items: int,
    stderr: float | None,
    chance: float | None,
    *,
    counts: bool,
    variance: float | None = None,
) -> bool:
    """Whether a figure lies less than Z95 standard deviations from guessing.

    Args:
        value: the metric, a share.
        items: number of items.
        stderr: standard error of `value`, if known.
        chance: expected value of guessing, if there is one.
        counts: each item is right or wrong; the deviation is then that of guessing itself.
        variance: variance of one guess, mean over items; without it, that of the mean chance.
    """
    if chance is None:
        return False
    # 1e-3 of an item: values are stored with at least 9 digits.
    if counts and items > 0 and 0 <= value <= 1 and abs(value * items - round(value * items)) < 1e-3:
        spread = chance * (1 - chance) if variance is None else variance
        if spread <= 0 or not 0 < chance < 1:
            return False
        return abs(round(value * items) - items * chance) < Z95 * math.sqrt(items * spread)
    return stderr is not None and stderr > 0 and abs(value - chance) < Z95 * stderr
