"""A suite cut into jobs by task and range of items: which groups each one scores, and how their scores come together.

Groups (`tree.group_items`) are never cut, and a score depends on its group alone, so n shards give the bits of one job.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.artifact.stage import StageError
from scripts.benchmark.output import read_generations, write_generations
from scripts.benchmark.replies import Dialogue
from scripts.recipe.base import canonical_json

_SCHEMA = pa.schema([("task", pa.string()), ("item", pa.int32()), ("loglikelihoods", pa.list_(pa.float64()))])


@dataclass
class TaskScores:
    """What the model said about some items of one task."""

    loglikelihoods: dict[int, list[float]] = field(default_factory=dict)
    """{item: natural log-likelihood of each request}."""
    truncated: int = 0
    """Requests that lost the left end of their context."""
    replies: dict[int, Dialogue] = field(default_factory=dict)
    """{item: generated replies}, of a task that generates."""


@dataclass
class Scores:
    """What the model said about a suite, or a shard of it."""

    max_length: int
    tasks: dict[str, TaskScores]
    digests: dict[str, object] = field(default_factory=dict)
    """Of weights, tokenizer and data (`identity.digests`)."""


def shard_groups(
    groups: Mapping[str, Sequence[range]], sizes: Mapping[str, Sequence[int]], shards: int, shard: int | None
) -> dict[str, list[range]]:
    """Return the groups of one shard: a run of the suite's groups, one task after another, with its share of the text.

    Args:
        groups: for each task its groups of items.
        sizes: for each task the work of each item, in bytes of text.
        shards: how many shards there are.
        shard: which one, from 0; None for all groups.
    """
    weights = {name: [sum(sizes[name][i] for i in group) for group in found] for name, found in groups.items()}
    total = max(1, sum(map(sum, weights.values())))
    chosen: dict[str, list[range]] = {name: [] for name in groups}
    before = 0
    for name, found in groups.items():
        for group, weight in zip(found, weights[name], strict=True):
            # The middle of a group decides, in integers: no rounding can put a group into two shards or none.
            owner = min(shards - 1, (2 * before + weight) * shards // (2 * total))
            if shard is None or owner == shard:
                chosen[name].append(group)
            before += weight
    return chosen


def write_shard(out: Path, scores: Scores, prompts: Mapping[str, str]) -> None:
    """Write `shard.json` and `samples.parquet` of one shard; `prompts` are the digests of all prompts of each task."""
    content = {
        "max_length": scores.max_length,
        "truncated": {name: task.truncated for name, task in scores.tasks.items()},
        "prompts_sha256": dict(prompts),
        "digests": scores.digests,
    }
    (out / "shard.json").write_text(canonical_json(content) + "\n", encoding="utf-8")
    rows = [
        {"task": name, "item": item, "loglikelihoods": values}
        for name, task in sorted(scores.tasks.items())
        for item, values in sorted(task.loglikelihoods.items())
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), out / "samples.parquet", compression="zstd")
    write_generations(out, {name: task.replies for name, task in scores.tasks.items() if task.replies})


def join_shards(folders: Sequence[Path], items: Mapping[str, int], prompts: Mapping[str, str]) -> Scores:
    """Return the scores of all shards together.

    Args:
        folders: the shards' artifacts.
        items: how many items each task has.
        prompts: digest of each task's prompts.

    Raises:
        StageError: shards of other prompts or another context length, an item scored twice or by none.
    """
    joined = Scores(0, {name: TaskScores() for name in items})
    lengths = set()
    for folder in folders:
        facts = json.loads((folder / "shard.json").read_text(encoding="utf-8"))
        if facts["prompts_sha256"] != prompts:
            raise StageError(f"{folder}: was scored on other prompts than this suite renders now; rebuild it")
        lengths.add(facts["max_length"])
        if joined.digests and facts["digests"] != joined.digests:
            raise StageError(f"{folder}: was scored on another model or other data than the shards before; rebuild it")
        joined.digests = facts["digests"]
        for name, count in facts["truncated"].items():
            joined.tasks[name].truncated += count
        for row in pq.read_table(folder / "samples.parquet").to_pylist():
            found = joined.tasks[row["task"]].loglikelihoods
            if row["item"] in found:
                raise StageError(f"{folder}: {row['task']} item {row['item']} was scored by another shard too")
            found[row["item"]] = row["loglikelihoods"]
        for name, replies in read_generations(folder).items():
            joined.tasks[name].replies.update(replies)
    if len(lengths) != 1:
        raise StageError(f"shards were scored at {sorted(lengths)} tokens; needs one max_length for all")
    joined.max_length = lengths.pop()
    for name, count in items.items():
        found = joined.tasks[name].loglikelihoods
        if sorted(found) != list(range(count)):
            raise StageError(f"task {name}: the shards hold {len(found)} of {count} items; rebuild the missing ones")
    return joined
