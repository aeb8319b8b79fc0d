"""Why an artifact would be made again: what it was made from then, beside what it would be made from now.

Needs the recipe and the results, neither Snakemake's records nor a GPU. Upstream comes first: an artifact whose inputs
would be made again may well stay, if these come out with the same bytes.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scripts.artifact.code import module_digests, stage_code
from scripts.artifact.digest import RECORD, SUMS, ArtifactError, value_of
from scripts.artifact.environment import lock_path, pins, stage_lock
from scripts.artifact.record import read_record
from scripts.artifact.verify import Fault, begin, read_all
from scripts.recipe.graph import Artifact, Graph, Job, artifact_path

_ABSENT = "(none)"


@dataclass(frozen=True)
class Reason:
    """One difference between then and now."""

    artifact: str
    """`stage/name`."""
    field: str
    """`payload`, `spec.<key>`, `inputs.<artifact>`, `code.<file>` or `lock.<package>`."""
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.artifact}: {self.field}: {self.old} -> {self.new}"


def explain(graph: Graph, results: Path, target: Artifact) -> list[Reason]:
    """Return the reasons of the target and of all that it is made from, in order of the flow; empty: up to date.

    Args:
        graph: jobs of the recipe.
        results: `results/<recipe>`.
        target: (stage, name) of an artifact of the recipe.
    """
    needed, waiting = set(), [target]
    while waiting:
        artifact = waiting.pop()
        if artifact not in needed:
            needed.add(artifact)
            waiting += graph.jobs[artifact].inputs
    now = _Now(cache(stage_code), cache(module_digests), cache(stage_lock), cache(_packages))
    chosen = [artifact for artifact in graph.jobs if artifact in needed]
    folders = [results / artifact_path(artifact) for artifact in chosen]
    built = [begin(folder) for folder in folders if (folder / SUMS).is_file()]
    faults = {check.folder: check.faults for check in read_all(built, os.cpu_count() or 1)}
    return [reason for artifact in chosen for reason in _reasons(graph, results, artifact, now, faults)]


@dataclass(frozen=True)
class _Now:
    """What a stage would be made with now; found out once a stage, since a recipe may have a thousand jobs."""

    code: Callable[[str], str]
    modules: Callable[[str], dict[str, str]]
    lock: Callable[[str], str]
    packages: Callable[[str], dict[str, str]]


def _packages(stage: str) -> dict[str, str]:
    return pins(lock_path(stage))


def _reasons(
    graph: Graph, results: Path, artifact: Artifact, now: _Now, faults: Mapping[Path, Sequence[Fault]]
) -> list[Reason]:
    job, name = graph.jobs[artifact], artifact_path(artifact)
    folder = results / name
    if folder not in faults:
        return [Reason(name, "payload", "missing", "to be built")]
    try:
        record = read_record(folder / RECORD)
    except ArtifactError as error:
        return [Reason(name, "payload", str(error), "to be built again")]
    damaged = [Reason(name, "payload", str(fault), "to be built again") for fault in faults[folder]]
    changed = _changed("spec", record["spec"], job.spec.identity())
    changed += _inputs(record, results, job)
    changed += _code(record, job.stage, now) + _lock(record, job.stage, now)
    return damaged + [Reason(name, *found) for found in changed]


def _changed(where: str, old: Any, new: Any) -> list[tuple[str, str, str]]:
    """Return (key path, old, new) of each leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            found for key in keys for found in _changed(f"{where}.{key}", old.get(key, _ABSENT), new.get(key, _ABSENT))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [found for i, (a, b) in pairs for found in _changed(f"{where}[{i}]", a, b)]
    return [] if old == new else [(where, _short(old), _short(new))]


def _short(value: Any) -> str:
    text = value if value == _ABSENT else repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _inputs(record: dict[str, Any], results: Path, job: Job) -> list[tuple[str, str, str]]:
    old = {str(name): str(value) for name, value in record["inputs"]}
    new: dict[str, str] = {}
    for artifact in job.inputs:
        folder = results / artifact_path(artifact)
        new[artifact_path(artifact)] = value_of(folder) if (folder / SUMS).is_file() else "(to be built)"
    found = [
        (f"inputs.{name}", old.get(name, _ABSENT)[:16], new.get(name, _ABSENT)[:16])
        for name in [*old, *(n for n in new if n not in old)]
        if old.get(name) != new.get(name)
    ]
    if not found and list(old) != list(new):
        found.append(("inputs", "order " + ", ".join(old), "order " + ", ".join(new)))
    return found


def _code(record: dict[str, Any], stage: str, now: _Now) -> list[tuple[str, str, str]]:
    if record["code"] == now.code(stage):
        return []
    found = _differing("code", record.get("modules"), now.modules(stage), 16)
    return found or [("code", str(record["code"])[:16], now.code(stage)[:16])]


def _lock(record: dict[str, Any], stage: str, now: _Now) -> list[tuple[str, str, str]]:
    if record["lock"] == now.lock(stage):
        return []
    found = _differing("lock", record.get("packages"), now.packages(stage), 40)
    return found or [("lock", str(record["lock"])[:16], now.lock(stage)[:16])]


def _differing(where: str, old: Any, new: dict[str, str], length: int) -> list[tuple[str, str, str]]:
    """Compare by name; records written before names were kept have none, so that only the digests can be shown."""
    if not isinstance(old, dict):
        return []
    names = sorted({*old, *new})
    return [
        (f"{where}.{n}", str(old.get(n, _ABSENT))[:length], new.get(n, _ABSENT)[:length])
        for n in names
        if old.get(n) != new.get(n)
    ]
