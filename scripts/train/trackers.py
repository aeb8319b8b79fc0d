"""Curves while a training runs, by accelerate's trackers. Rank 0 only, and nothing of it is hashed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError


def check_trackers(names: list[str]) -> None:
    """Refuse trackers that are not installed, before any work.

    Raises:
        StageError: the message names the package and the recipe's key.
    """
    for name in names:
        if find_spec(name) is None:
            text = f"trackers names {name}, but the package {name} is not installed"
            raise StageError(f"{text}; install it, or remove it from the model's train.trackers")


class Trackers:
    """The trackers of one training; without names, or on other ranks than 0, every call does nothing."""

    def __init__(self, names: list[str], folder: Path, model: str) -> None:
        """Keep what is needed to start them.

        Args:
            names: `tensorboard`, `wandb`.
            folder: for TensorBoard's event files, one folder a model below it.
            model: name of the run.
        """
        self._names, self._folder, self._model = names, folder, model
        self._running: list[Any] = []

    def start(self, first_step: int) -> None:
        """Begin to draw; after a resume TensorBoard hides the steps that are taken again."""
        if not self._names:
            return
        import torch
        from accelerate.state import PartialState
        from accelerate.tracking import TensorBoardTracker, WandBTracker

        # The trackers' log messages ask it who they are; it finds the process group and makes none.
        PartialState(cpu=not torch.cuda.is_available())
        for name in self._names:
            if name == "tensorboard":
                tracker = TensorBoardTracker(self._model, self._folder, purge_step=first_step + 1)
            else:
                tracker = WandBTracker("atelier", name=self._model, dir=str(self._folder))
            # Only rank 0 is here.
            tracker.main_process_only = False
            tracker.start()
            self._running.append(tracker)

    def log(self, line: dict[str, Any]) -> None:
        """Draw the numbers of one line of metrics.jsonl or speed.jsonl at its step."""
        if not self._running:
            return
        values: dict[str, float] = {}
        for key, value in line.items():
            parts = value.items() if isinstance(value, dict) else [("", value)]
            values.update({f"{key}/{k}" if k else key: v for k, v in parts if isinstance(v, int | float)})
        step = int(values.pop("step"))
        for tracker in self._running:
            tracker.log(values, step=step)

    def finish(self) -> None:
        """Write what is left and close."""
        for tracker in self._running:
            tracker.finish()
        self._running.clear()
