"""Do benchmarks follow role-play? Rank correlations between the two, over the recipe's models."""

from collections.abc import Mapping
from typing import Any

from scripts.recipe.ranks import kendall, spearman
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
