"""How long jobs took last, read from the artifacts that they made."""

import json
from pathlib import Path
from typing import Any

from scripts.artifact.digest import FACTS
from scripts.recipe.graph import Artifact, artifact_path


class Durations:
    """Seconds of the last job of each artifact, by stage; a file is read again only when it has changed."""

    def __init__(self) -> None:
        self._files: dict[Path, tuple[float, dict[str, Any]]] = {}
        self._seconds: dict[str, dict[str, float]] = {}

    def learn(self, results: Path, artifact: Artifact) -> None:
        """Note how long an artifact's job took last; of a training, for the steps that it has now."""
        stage, name = artifact
        folder = results / artifact_path(artifact)
        try:
            seconds = float(self._json(folder / FACTS)["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        if stage == "train":
            seconds *= self._longer(folder, results / "pack" / name)
        self._seconds.setdefault(stage, {})[name] = seconds

    def mean(self, stage: str) -> float | None:
        """Return the mean seconds of a stage's jobs; None where none has ever ended."""
        found = self._seconds.get(stage)
        return sum(found.values()) / len(found) if found else None

    def _longer(self, training: Path, pack: Path) -> float:
        """Return the steps of the schedule that lies there by those that were last trained; 1 where one is unknown."""
        try:
            return float(self._json(pack / "pack.json")["steps"]) / float(self._json(training / "train.json")["steps"])
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            return 1.0

    def _json(self, path: Path) -> dict[str, Any]:
        stamp = path.stat().st_mtime
        if path not in self._files or self._files[path][0] != stamp:
            self._files[path] = stamp, dict(json.loads(path.read_text(encoding="utf-8")))
        return self._files[path][1]
