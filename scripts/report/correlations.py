"""Do benchmarks follow role-play? Rank correlations between the two, over the recipe's models."""

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.recipe.ranks import kendall, spearman
from scripts.report.directions import direction
from scripts.report.payloads import Benchmark, Metric

ROLE_PLAY = ("bits_per_byte", "next_turn", "refusal", "generation", "extraction")
"""Formats whose tasks measure conversations of the recipe; the others are benchmarks."""
BY_SOURCE = "bits_per_byte/"
MIN_MODELS = 3
"""Two models always correlate perfectly."""


def rank_correlations(found: Mapping[str, Benchmark]) -> list[dict[str, Any]]:
    """Return one row for each pair of a benchmark and a role-play measure that some model has both of.

    A benchmark counts with its first metric, a group (MMLU) as one benchmark in the place of its members. Every
    measure is turned so that more is better before it is ranked: above 0, both prefer the same models. Spearman's rho
    and Kendall's tau-b are None below MIN_MODELS common models, and where one side has no two different values. With
    so few models they describe; n is stated, no significance is claimed.
    """
    scores: dict[tuple[bool, str], dict[str, float]] = {}
    ways: dict[str, int] = {}
    for result in found.values():
        for judged, task, metric, figure in _measures(result):
            name = f"{result.suite}: {task}, {metric}"
            ways[name] = direction(metric)
            scores.setdefault((judged, name), {})[result.model] = figure.value * (ways[name] or 1)
    rows: list[dict[str, Any]] = []
    for (_, benchmark), left in ((key, v) for key, v in scores.items() if not key[0]):
        for (_, measure), right in ((key, v) for key, v in scores.items() if key[0]):
            models = [model for model in left if model in right]
            a, b = [left[m] for m in models], [right[m] for m in models]
            enough = len(models) >= MIN_MODELS
            row = {"benchmark": benchmark, "measure": measure, "models": len(models), "direction": ways[measure]}
            both = (spearman(a, b), kendall(a, b)) if enough else (None, None)
            rows.append({**row, "spearman": both[0], "kendall": both[1]})
    # With two models there is no figure at all to show.
    return rows if any(row["models"] >= MIN_MODELS for row in rows) else []


def _measures(result: Benchmark) -> Iterator[tuple[bool, str, str, Metric]]:
    """Yield (whether it measures role-play, task or group, metric, figure) of what is ranked."""
    members = {task: group for group, facts in result.groups.items() for task in facts.tasks}
    seen: set[str] = set()
    for task, content in result.tasks.items():
        if content.format in ROLE_PLAY:
            # By source: in a table of their own.
            whole = ((metric, figure) for metric, figure in content.metrics.items() if not metric.startswith(BY_SOURCE))
            yield from ((True, task, metric, figure) for metric, figure in whole)
            continue
        name = members.get(task, task)
        metrics = result.groups[name].metrics if task in members else content.metrics
        if name not in seen:
            yield from ((False, name, metric, figure) for metric, figure in list(metrics.items())[:1])
        seen.add(name)


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
