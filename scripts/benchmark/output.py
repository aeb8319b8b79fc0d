"""The stage's payload: `results.json` and `samples.parquet`, the same bytes whenever the scores are the same."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.benchmark.replies import Dialogue, Reply
from scripts.recipe.base import check_canonical

_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("item", pa.int32()),
        ("pick", pa.int32()),
        ("gold", pa.int32()),
        ("loglikelihoods", pa.list_(pa.float64())),
        # In the order of the task's metrics in results.json (sorted by name); empty for held-out rows.
        ("scores", pa.list_(pa.float64())),
    ]
)
_REPLY = pa.struct([("text", pa.string()), ("end", pa.string())])
_GENERATIONS = pa.schema(
    [("task", pa.string()), ("item", pa.int32()), ("context", pa.string()), ("replies", pa.list_(_REPLY))]
)


@dataclass(frozen=True)
class Sample:
    """One scored item; `pick` and `gold` are None where there is nothing to choose (held-out rows)."""

    pick: int | None
    gold: int | None
    loglikelihoods: list[float]
    scores: dict[str, float] = field(default_factory=dict)
    """{metric: score of this item}."""


@dataclass(frozen=True)
class TaskResult:
    """One row of the results table."""

    format: str
    prompts_sha256: str
    metrics: dict[str, tuple[float, float | None]]
    """{metric: (value, standard error)}."""
    chance: float | None
    """Expected value of a random pick, for every metric of the task; None where there is none."""
    correct: int | None
    """Items right by the first metric; None where that metric is no count."""
    note: str
    samples: Sequence[Sample]
    chance_variance: float | None = None
    """Variance of one random pick, mean over items: with it the distance from guessing is exact."""
    shots: int = 0
    bos: bool | None = None
    """Whether contexts begin with BOS."""
    upstream_bug: str = ""
    group: str | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """{metric: (low, high)}: 95 % intervals of those metrics that have an own one."""

    def as_json(self) -> dict[str, object]:
        """Return the task's entry of results.json."""
        return {
            "format": self.format,
            "items": len(self.samples),
            "prompts_sha256": self.prompts_sha256,
            "metrics": {
                name: {"value": value, "stderr": stderr, "chance": self.chance, **self._interval(name)}
                for name, (value, stderr) in self.metrics.items()
            },
            "chance_variance": self.chance_variance,
            "correct": self.correct,
            "shots": self.shots,
            "bos": self.bos,
            "upstream_bug": self.upstream_bug,
            "note": self.note,
        }

    def _interval(self, name: str) -> dict[str, float]:
        return dict(zip(("low", "high"), self.intervals.get(name, ()), strict=False))


def groups_of(tasks: Mapping[str, TaskResult]) -> dict[str, dict[str, object]]:
    """Return {group: its row}: each metric as the plain mean of the tasks, and weighted by their numbers of items.

    The leaderboard of 2023 took the plain mean of MMLU's 57 subjects, lm-eval 0.4.13 weights them; both stand in the
    results. Standard errors take the tasks as independent: root of the sum of (weight * stderr)^2.
    """
    rows: dict[str, dict[str, object]] = {}
    for group in sorted({task.group for task in tasks.values() if task.group is not None}):
        members = {name: task for name, task in sorted(tasks.items()) if task.group == group}
        sizes = [len(task.samples) for task in members.values()]
        metrics: dict[str, object] = {}
        for metric in next(iter(members.values())).metrics:
            found = [task.metrics[metric] for task in members.values()]
            guesses = [task.chance for task in members.values()]
            for label, weights in (("", [1 / len(sizes)] * len(sizes)), ("_weighted", [n / sum(sizes) for n in sizes])):
                metrics[f"{metric}{label}"] = _mean(found, guesses, weights)
        rows[group] = {"tasks": list(members), "items": sum(sizes), "metrics": metrics}
    return rows


def _mean(
    found: Sequence[tuple[float, float | None]], guesses: Sequence[float | None], weights: Sequence[float]
) -> dict[str, float | None]:
    value = math.fsum(w * v for w, (v, _) in zip(weights, found, strict=True))
    errors = [w * e for w, (_, e) in zip(weights, found, strict=True) if e is not None]
    known = [w * c for w, c in zip(weights, guesses, strict=True) if c is not None]
    return {
        "value": value,
        "stderr": math.hypot(*errors) if len(errors) == len(found) else None,
        "chance": math.fsum(known) if len(known) == len(found) else None,
    }


def write_results(
    out: Path,
    model: str,
    suite: str,
    tasks: Mapping[str, TaskResult],
    *,
    protocol: str = "",
    digests: Mapping[str, object] | None = None,
) -> None:
    """Write both files below `out`; nothing of the clock or the machine goes into them.

    Args:
        out: folder of the artifact.
        model: the model's name.
        suite: the suite's name.
        tasks: what was scored, in the suite's order.
        protocol: how prompts and scores are made.
        digests: of data, weights and tokenizer.
    """
    content = {
        "model": model,
        "suite": suite,
        "protocol": protocol,
        "digests": dict(digests or {}),
        "tasks": {name: task.as_json() for name, task in tasks.items()},
        "groups": groups_of(tasks),
    }
    check_canonical(content)
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    (out / "results.json").write_text(text + "\n", encoding="utf-8")
    rows = [
        {
            "task": name,
            "item": i,
            "pick": s.pick,
            "gold": s.gold,
            "loglikelihoods": s.loglikelihoods,
            "scores": [s.scores[metric] for metric in sorted(s.scores)],
        }
        for name, task in sorted(tasks.items())
        for i, s in enumerate(task.samples)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), out / "samples.parquet", compression="zstd")


def write_generations(out: Path, tasks: Mapping[str, Mapping[int, Dialogue]]) -> None:
    """Write `generations.parquet` below `out`, if any task has generated something."""
    rows = [
        {
            "task": name,
            "item": item,
            "context": dialogue.context,
            "replies": [{"text": reply.text, "end": reply.end} for reply in dialogue.replies],
        }
        for name, found in sorted(tasks.items())
        for item, dialogue in sorted(found.items())
    ]
    if rows:
        table = pa.Table.from_pylist(rows, schema=_GENERATIONS)
        pq.write_table(table, out / "generations.parquet", compression="zstd")


def read_generations(folder: Path) -> dict[str, dict[int, Dialogue]]:
    """Return what `write_generations` wrote: {task: {item: replies}}."""
    path = folder / "generations.parquet"
    found: dict[str, dict[int, Dialogue]] = {}
    for row in pq.read_table(path).to_pylist() if path.is_file() else []:
        replies = tuple(Reply(reply["text"], reply["end"]) for reply in row["replies"])
        found.setdefault(row["task"], {})[row["item"]] = Dialogue(row["context"], replies)
    return found
