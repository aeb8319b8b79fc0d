"""Do benchmarks follow role-play? Rank correlations between the two, over the recipe's models."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scripts.report.payloads import Benchmark

ROLE_PLAY = ("bits_per_byte", "next_turn", "refusal", "generation", "extraction")
"""Formats whose tasks measure conversations of the recipe; the others are benchmarks."""
MIN_MODELS = 3
"""Two models always correlate perfectly."""


def rank_correlations(found: Mapping[str, Benchmark]) -> list[dict[str, Any]]:
    """Return one row for each pair of a benchmark and a role-play measure that at least MIN_MODELS models have.

    A benchmark counts with its first metric. Spearman's rho and Kendall's tau-b are None where one side has no two
    different values. With so few models they describe; n is stated, no significance is claimed.
    """
    scores: dict[tuple[bool, str], dict[str, float]] = {}
    for result in found.values():
        for task, content in result.tasks.items():
            judged = content.format in ROLE_PLAY
            metrics = list(content.metrics.items())
            for metric, figure in metrics if judged else metrics[:1]:
                if not metric.startswith("bits_per_byte/"):
                    name = f"{result.suite}: {task}, {metric}"
                    scores.setdefault((judged, name), {})[result.model] = figure.value
    rows = []
    for (_, benchmark), left in ((key, v) for key, v in scores.items() if not key[0]):
        for (_, measure), right in ((key, v) for key, v in scores.items() if key[0]):
            models = [model for model in left if model in right]
            if len(models) >= MIN_MODELS:
                a, b = [left[m] for m in models], [right[m] for m in models]
                row = {"benchmark": benchmark, "measure": measure, "models": len(models)}
                rows.append({**row, "spearman": spearman(a, b), "kendall": kendall(a, b)})
    return rows


def ranks(values: Sequence[float]) -> list[float]:
    """Return ranks from 1; equal values share their mean rank."""
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the correlation of the ranks, -1 to 1."""
    x, y, mean = ranks(a), ranks(b), (len(a) + 1) / 2
    both = math.fsum((p - mean) * (q - mean) for p, q in zip(x, y, strict=True))
    spread = math.fsum((p - mean) ** 2 for p in x) * math.fsum((q - mean) ** 2 for q in y)
    return both / math.sqrt(spread) if spread else None


def kendall(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return tau-b: concordant less discordant pairs, over the geometric mean of the pairs untied on each side."""
    signs = [((a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])) for i in range(len(a)) for j in range(i)]
    untied = sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs)
    return sum(x * y for x, y in signs) / math.sqrt(untied) if untied else None


def role_play_rows(found: Mapping[str, Benchmark]) -> list[dict[str, Any]]:
    """Return every figure of the role-play tasks, except bits per byte, which have their own table."""
    return [
        {"model": result.model, "suite": result.suite, "task": task, "metric": metric, "value": figure.value,
         "stderr": figure.stderr, "chance": figure.chance, "items": content.items, "note": content.note or ""}
        for result in found.values()
        for task, content in result.tasks.items()
        if content.format in ROLE_PLAY and content.format != "bits_per_byte"
        for metric, figure in content.metrics.items()
    ]  # fmt: skip
