"""What the door tells the workers and what they tell it: two small JSON files, no torch in sight."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError
from scripts.recipe.train import TrainSpec

RESULT = "result.json"
FAILURE = "failure.txt"
_PLACES = ("base", "pack", "out", "work", "curves")


class CollectiveError(StageError):
    """A StageError that every rank raises at the same place, so that all can end in order."""


@dataclass(frozen=True)
class Task:
    """One training, as a worker sees it."""

    spec: TrainSpec
    base: Path
    """Model folder to start from."""
    pack: Path
    """Folder of the schedule and the tokens."""
    out: Path
    """Folder for the payload."""
    work: Path
    """Folder for checkpoints and metrics; survives attempts."""
    fingerprint: dict[str, Any]
    """What a checkpoint must have been made from, flat: dotted field -> plain value."""
    curves: Path
    """Folder for TensorBoard's event files."""

    def write(self, path: Path) -> None:
        """Write the task as JSON."""
        places = {name: str(getattr(self, name)) for name in _PLACES}
        content = {"spec": self.spec.model_dump(mode="json"), "fingerprint": self.fingerprint, **places}
        path.write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Task":
        """Return the task that `write` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        places = {name: Path(content[name]) for name in _PLACES}
        return cls(TrainSpec.model_validate(content["spec"]), fingerprint=content["fingerprint"], **places)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return {dotted name: leaf} of nested tables, so that a difference can be named by its field."""
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, item in value.items():
        found.update(flatten(item, f"{prefix}.{name}" if prefix else str(name)))
    return found


def write_atomic(path: Path, text: str) -> None:
    """Replace a small file as a whole: a reader sees the old text or the new one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with draft.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(draft, path)
