"""What the cards show of benchmarks and trainings, read from the payloads (docs/formats.md)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError
from scripts.recipe.exports import Row
from scripts.recipe.judge import judge
from scripts.recipe.release import ReleaseSpec


@dataclass(frozen=True)
class Curve:
    """Losses of one training, nats a token."""

    model: str
    train: list[tuple[int, float]]
    """(step, loss)."""
    held_out: list[tuple[int, float]]
    published_step: int


def benchmark_rows(spec: ReleaseSpec, found: Mapping[str, Path]) -> list[Row]:
    """Return one row for each suite, task and metric, as `scripts.recipe.exports` wants them; groups as one row."""
    rows = []
    for name, folder in found.items():
        suite = name.split("/", 1)[1]
        result = _json(folder / "results.json")
        for task, facts in _rows_of(result).items():
            common = {"model": spec.model, "suite": suite, "task": task, "protocol": result.get("protocol", "")}
            said = {key: facts.get(key) or "" for key in ("upstream_bug", "note")}
            shared = {"shots": facts.get("shots", 0), "bos": facts.get("bos"), "published": None, **said}
            for metric, score in facts["metrics"].items():
                if score["value"] is not None:
                    rows.append({**common, **shared, "metric": metric, **_figures(facts, metric, score)})
    return rows


def _rows_of(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return {task or group: facts} of a results.json, a group in the place of its tasks."""
    groups = result.get("groups", {})
    members = {task for group in groups.values() for task in group["tasks"]}
    rows = {task: facts for task, facts in result["tasks"].items() if task not in members}
    for group, facts in groups.items():
        tasks = {task: result["tasks"][task] for task in facts["tasks"]}
        mean = f"Plain mean of {len(tasks)} tasks; `_weighted` counts each item alike."
        rows[group] = {
            **next(iter(tasks.values())),
            **facts,
            # A mean counts nothing, and has no guess whose variance is known.
            "correct": None,
            "chance_variance": None,
            "upstream_bug": _of_members(tasks, "upstream_bug"),
            "note": " ".join(filter(None, [mean, _of_members(tasks, "note")])),
        }
    return rows


def _of_members(tasks: Mapping[str, Mapping[str, Any]], key: str) -> str:
    """Return what is said of a group's tasks: each text once, behind the tasks that it is about."""
    about: dict[str, list[str]] = {}
    for task, facts in tasks.items():
        if facts.get(key):
            about.setdefault(facts[key], []).append(task)
    return " ".join(
        text if len(names) == len(tasks) else f"{', '.join(names)}: {text}" for text, names in about.items()
    )


def _figures(facts: Mapping[str, Any], metric: str, score: Mapping[str, Any]) -> Row:
    """Return value, errors and N of one metric; N is None for a metric of a part of the items (`words/turn_2`)."""
    value, stderr, chance = score["value"], score["stderr"], score.get("chance")
    counts, variance = facts.get("correct") is not None, facts.get("chance_variance")
    return {
        "value": value,
        "stderr": stderr,
        "chance": chance,
        "items": None if "/" in metric else facts["items"],
        "at_chance": judge(value, facts["items"], stderr, chance, counts, variance).at_chance,
    }


def losses(model: str, folder: Path) -> Curve:
    """Return the loss curves of a training artifact."""
    path = folder / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        train = [(int(line["step"]), float(line["loss"])) for line in lines if "loss" in line]
        held_out = [(int(line["step"]), float(line["eval_loss"])) for line in lines if "eval_loss" in line]
    except (OSError, ValueError, KeyError) as error:
        raise StageError(f"{path}: not a training's metrics ({error}); train again") from None
    return Curve(model, train, held_out, int(_json(folder / "train.json")["published_step"]))


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise StageError(f"{path}: can't be read ({error}); build the artifact again") from None
