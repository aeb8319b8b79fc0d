"""What the cards show of benchmarks and trainings, read from the payloads (docs/formats.md)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError
from scripts.recipe.exports import Row
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
        groups = result.get("groups", {})
        members = {task for group in groups.values() for task in group["tasks"]}
        tasks = {task: facts for task, facts in result["tasks"].items() if task not in members}
        for group, facts in groups.items():
            tasks[group] = {**result["tasks"][facts["tasks"][0]], "items": facts["items"], "metrics": facts["metrics"]}
        for task, facts in tasks.items():
            common = {"model": spec.model, "suite": suite, "task": task, "protocol": result.get("protocol", "")}
            shared = {"items": facts["items"], "shots": facts.get("shots", 0), "bos": facts.get("bos")}
            for metric, score in facts["metrics"].items():
                if score["value"] is not None:
                    figures = {"metric": metric, "value": score["value"], "stderr": score["stderr"]}
                    rows.append({**common, **shared, **figures, "chance": score.get("chance"), "published": None})
    return rows


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
