"""Benchmark rows of the scorecard: ours beside the published ones, and the recipe's models beside one another."""

import math
from collections.abc import Iterator
from typing import Any

from scripts.recipe.judge import Z95, judge, z_of_count
from scripts.recipe.published import Figure, PublishedTable, PublishedTask, consistent_counts
from scripts.recipe.report import ReportSpec
from scripts.report.compare import Compared
from scripts.report.correlations import ROLE_PLAY
from scripts.report.directions import direction
from scripts.report.items import compare_items, items_of
from scripts.report.notes import joined_notes
from scripts.report.payloads import Benchmark, Group, Metric, Payloads, TaskResult

BITS = "bits_per_byte"


def benchmark_rows(spec: ReportSpec, found: Payloads) -> list[dict[str, Any]]:
    """Return one row for each model, suite, task and metric; a group (MMLU) is one row, not its 57 members."""
    rows = []
    for result in found.benchmarks.values():
        members = {task for group in result.groups.values() for task in group.tasks}
        for name, task in result.tasks.items():
            if task.format not in ROLE_PLAY and name not in members:
                rows += [_row(spec, result, name, task, metric) for metric in task.metrics]
        for name, group in result.groups.items():
            rows += [_row(spec, result, name, _whole(result, group), metric) for metric in group.metrics]
    return rows


def _whole(result: Benchmark, group: Group) -> TaskResult:
    """Return a group as if it were one task, with what there is to say about its members."""
    members = {task: result.tasks[task] for task in group.tasks}
    notes = joined_notes((task, facts.note or "") for task, facts in members.items())
    mean = f"Plain mean of {len(group.tasks)} tasks; `_weighted` counts each item alike. {notes}".strip()
    bugs = dict.fromkeys(facts.upstream_bug for facts in members.values() if facts.upstream_bug)
    changes = {"items": group.items, "metrics": group.metrics, "correct": None, "chance_variance": None}
    changes |= {"prompts_sha256": None, "note": mean, "upstream_bug": " ".join(bugs)}
    return next(iter(members.values())).model_copy(update=changes)


def benchmark_groups(found: Payloads) -> list[dict[str, Any]]:
    """Return the members of every group with their first metric."""
    return [
        {
            "model": result.model,
            "suite": result.suite,
            "group": name,
            "metric": metric,
            "tasks": [
                {"task": task, "items": result.tasks[task].items, "value": result.tasks[task].metrics[metric].value}
                for task in group.tasks
            ],
        }
        for result in found.benchmarks.values()
        for name, group in result.groups.items()
        for metric in list(result.tasks[group.tasks[0]].metrics)[:1]
    ]


def benchmark_digests(found: Payloads) -> list[dict[str, Any]]:
    """Return what was measured: digests of weights, tokenizer and data of each model and suite."""
    return [
        {"model": r.model, "suite": r.suite, "protocol": r.protocol, **r.digests.model_dump()}
        for r in found.benchmarks.values()
        if r.digests.weights
    ]


def _row(spec: ReportSpec, result: Benchmark, name: str, task: TaskResult, metric: str) -> dict[str, Any]:
    figure = task.metrics[metric]
    judged = judge(
        figure.value, task.items, figure.stderr, figure.chance, task.correct is not None, task.chance_variance
    )
    return {
        "model": result.model,
        "suite": result.suite,
        "protocol": result.protocol,
        "task": name,
        "metric": metric,
        "value": figure.value,
        "stderr": figure.stderr,
        "low": judged.low,
        "high": judged.high,
        "correct": judged.correct,
        "items": task.items,
        "shots": task.shots,
        "bos": task.bos,
        "chance": figure.chance,
        "z": judged.z,
        "at_chance": judged.at_chance,
        "upstream_bug": task.upstream_bug,
        "note": task.note or "",
        "prompts_sha256": task.prompts_sha256,
        "published": _published(spec, result, name, task, metric),
    }


def _published(spec: ReportSpec, result: Benchmark, name: str, task: TaskResult, metric: str) -> dict[str, Any] | None:
    """Return the printed figure of this row, how far ours is from it, and whether its arithmetic is possible."""
    facts = spec.suites.get(result.suite)
    for figures in spec.published:
        if figures.model != result.model or facts is None:
            continue
        hit = figures.find(facts.published_table, name, metric)
        if hit is not None:
            return _against(figures.title, figures.source, *hit, task, task.metrics[metric])
    return None


def _against(
    title: str,
    source: str,
    table: PublishedTable,
    row: PublishedTask,
    figure: Figure,
    task: TaskResult,
    ours: Metric,
) -> dict[str, Any]:
    errors = [e for e in (ours.stderr, figure.stderr) if e is not None]
    joint = math.hypot(*errors) if errors else 0.0
    difference = ours.value - figure.value
    counts: tuple[int, ...] | None = None
    if figure.correct is not None and figure.stderr is not None:
        counts = consistent_counts(figure.value, figure.stderr, row.items)
    same_items = row.items == task.items
    z = None
    if figure.correct is not None and same_items:
        z = z_of_count(figure.correct, row.items, ours.chance, task.chance_variance)
    return {
        "title": title,
        "source": source,
        "protocol": table.protocol,
        "name": row.printed_as or "",
        "actually": row.actually or "",
        "note": row.note,
        "value": figure.value,
        "stderr": figure.stderr,
        "correct": figure.correct,
        "items": row.items,
        "difference_points": 100 * difference,
        "difference_stderr": difference / joint if joint else None,
        # One error alone makes the distance look larger than it is: said beside it.
        "both_stderr": len(errors) == 2,
        "arithmetic": None if counts is None else figure.correct in counts,
        "z": z,
        "at_chance": z is not None and abs(z) < Z95,
        "same_items": same_items,
    }


def benchmark_pairs(spec: ReportSpec, found: Payloads) -> list[dict[str, Any]]:
    """Return the tests between each model and the models it was made from, on the same items."""
    by_model = {(r.model, r.suite): (key, r) for key, r in found.benchmarks.items()}
    rows: list[dict[str, Any]] = []
    for model, (_, *parents) in spec.models.items():
        for parent in dict.fromkeys(parents):
            for (other, suite), (key, result) in by_model.items():
                if other == model and (parent, suite) in by_model:
                    rows += _pair_rows(found, by_model[(parent, suite)], (key, result))
    return rows


def _sides(result: Compared, way: int) -> dict[str, int | None]:
    """Return the items on which the second is better and worse; None where more is neither."""
    better, worse = (result.higher, result.lower) if way > 0 else (result.lower, result.higher)
    return {"direction": way, "better": better if way else None, "worse": worse if way else None}


def _pair_rows(
    found: Payloads, first: tuple[str, Benchmark], second: tuple[str, Benchmark]
) -> Iterator[dict[str, Any]]:
    (first_key, a), (second_key, b) = first, second
    mine = items_of(b, found.scores.get(second_key, {}), b.groups)
    theirs = items_of(a, found.scores.get(first_key, {}), b.groups)
    for (task, metric), items in mine.items():
        others = theirs.get((task, metric))
        result = compare_items(others, items, b.suite, task, metric) if others else None
        if others is None or result is None:
            continue
        yield {
            "suite": b.suite,
            "task": task,
            "metric": metric,
            "first": a.model,
            "second": b.model,
            "items": len(items.scores),
            "difference_points": 100 * result.difference,
            "share": items.are_shares and others.are_shares,
            **_sides(result, direction(metric)),
            "test": result.test,
            "p_value": result.p_value,
        }
