"""The stage's payload: `results.json` and `samples.parquet`, the same bytes whenever the scores are the same."""

import json
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
            "correct": self.correct,
            "note": self.note,
        }

    def _interval(self, name: str) -> dict[str, float]:
        return dict(zip(("low", "high"), self.intervals.get(name, ()), strict=False))


def write_results(out: Path, model: str, suite: str, tasks: dict[str, TaskResult]) -> None:
    """Write both files below `out`; nothing of the clock or the machine goes into them."""
    content = {"model": model, "suite": suite, "tasks": {name: task.as_json() for name, task in tasks.items()}}
    check_canonical(content)
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    (out / "results.json").write_text(text + "\n", encoding="utf-8")
    rows = [
        {"task": name, "item": i, "pick": s.pick, "gold": s.gold, "loglikelihoods": s.loglikelihoods}
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
