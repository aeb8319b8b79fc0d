"""Scores of single items, also of groups: what a test between two models on the same items is made on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scripts.report.compare import Compared, compare
from scripts.report.payloads import Benchmark, Group, Scores

WEIGHTED = "_weighted"
"""Ending of a group's metric that counts each item alike; without it each task counts alike."""


@dataclass(frozen=True)
class Items:
    """One metric of a task or a group, item by item."""

    scores: list[float]
    weights: list[float]
    """How much an item counts in the metric, the mean of weight * score; all 1 but in a plain mean of tasks."""
    asked: tuple[tuple[str, str | None, int], ...]
    """(task, digest of its prompts, number of items): equal where two models answered the same."""

    @property
    def are_shares(self) -> bool:
        """Whether differences can be said in points of a hundred."""
        return all(0 <= score <= 1 for score in self.scores)


def items_of(result: Benchmark, scores: Scores, groups: Mapping[str, Group]) -> dict[tuple[str, str], Items]:
    """Return {(task, metric): items}; a group stands in the place of its members, by both of its means.

    Args:
        result: one model's results of a suite.
        scores: the scores of its items.
        groups: the groups to make; one of which a member has no scores is left out.
    """
    members = {task: group for group, facts in groups.items() for task in facts.tasks}
    found: dict[tuple[str, str], Items] = {}
    for task, metric in scores:
        if task not in members:
            values = scores[(task, metric)]
            found[(task, metric)] = Items(values, [1.0] * len(values), (_asked(result, task, values),))
        elif (members[task], metric) not in found:
            found.update(_group(result, scores, members[task], groups[members[task]].tasks, metric))
    return found


def compare_items(first: Items, second: Items, *key: object) -> Compared | None:
    """Return the paired test of a metric, second minus first; None where the two did not answer the same items."""
    if first.asked != second.asked or not first.scores:
        return None
    old, new = ([w * s for w, s in zip(x.weights, x.scores, strict=True)] for x in (first, second))
    return compare(old, new, *key)


def _group(
    result: Benchmark, scores: Scores, group: str, tasks: Sequence[str], metric: str
) -> Iterator[tuple[tuple[str, str], Items]]:
    lists = [scores.get((task, metric), []) for task in tasks]
    if not all(lists):
        return
    asked = tuple(_asked(result, task, values) for task, values in zip(tasks, lists, strict=True))
    pooled, total = [score for values in lists for score in values], sum(map(len, lists))
    # Each task weighs 1 / number of tasks, shared among its items.
    weights = [total / (len(tasks) * len(values)) for values in lists for _ in values]
    yield (group, metric), Items(pooled, weights, asked)
    yield (group, f"{metric}{WEIGHTED}"), Items(pooled, [1.0] * total, asked)


def _asked(result: Benchmark, task: str, values: list[float]) -> tuple[str, str | None, int]:
    return task, result.tasks[task].prompts_sha256 if task in result.tasks else None, len(values)
