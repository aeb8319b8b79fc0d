"""Rank correlations of short lists, ties and all."""

import math
from collections.abc import Sequence


def ranks(values: Sequence[float]) -> list[float]:
    """Return ranks from 1; equal values share their mean rank."""
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the correlation of the ranks, -1 to 1; None where one side has no two different values."""
    x, y, mean = ranks(a), ranks(b), (len(a) + 1) / 2
    both = math.fsum((p - mean) * (q - mean) for p, q in zip(x, y, strict=True))
    spread = math.fsum((p - mean) ** 2 for p in x) * math.fsum((q - mean) ** 2 for q in y)
    return both / math.sqrt(spread) if spread else None


def kendall(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return tau-b: concordant less discordant pairs, over the geometric mean of the pairs untied on each side."""
    signs = [((a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])) for i in range(len(a)) for j in range(i)]
    untied = sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs)
    return sum(x * y for x, y in signs) / math.sqrt(untied) if untied else None
