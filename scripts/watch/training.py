"""A training that runs: its JSON lines in the work folder, as they grow."""

import json
import math
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.watch.tail import Tail

_RECENT = 32
"""Steps whose mean gives speed and time left: evaluations and checkpoints fall among them."""


@dataclass
class Training:
    """Where a training stands."""

    step: int = 0
    steps: int | None = None
    losses: list[float] = field(default_factory=list)
    """Training loss of each step, nats a token."""
    eval_loss: float | None = None
    eval_step: int = 0
    seconds_a_step: float | None = None
    tokens_per_s: float | None = None
    mfu: float | None = None
    memory_bytes: int | None = None
    """Peak of rank 0: of the GPU where there is one, else of the process."""
    on_gpu: bool = False

    @property
    def left_s(self) -> float | None:
        """Seconds to the last step, as the recent ones went."""
        if self.steps is None or self.seconds_a_step is None:
            return None
        return max(0, self.steps - self.step) * self.seconds_a_step


class TrainingReader:
    """Follows one training; `folder` is its work folder, which may come and go."""

    def __init__(self, folder: Path, pack: Path) -> None:
        self._pack = pack
        self._metrics, self._speed = Tail(folder / "metrics.jsonl"), Tail(folder / "speed.jsonl")
        self._recent: deque[dict[str, Any]] = deque(maxlen=_RECENT)
        self.state = Training()

    def read(self) -> Training:
        """Take in what was written since the last call."""
        state = self.state
        if state.steps is None:
            state.steps = _steps(self._pack)
        if self._metrics.restarted():  # cut back to a checkpoint
            state.losses, state.step, state.eval_loss = [], 0, None
            self._recent.clear()
        for line in _json_lines(self._metrics):
            step = int(line.get("step", 0))
            if isinstance(line.get("loss"), float):
                state.losses.append(line["loss"])
            if isinstance(line.get("eval_loss"), float):
                state.eval_loss, state.eval_step = line["eval_loss"], step
            state.step = step
        for line in _json_lines(self._speed):
            if self._recent and int(line.get("step", 0)) <= int(self._recent[-1].get("step", 0)):
                self._recent.clear()  # a new attempt
            self._recent.append(line)
        self._measure()
        return state

    def _measure(self) -> None:
        recent, state = list(self._recent), self.state
        if not recent:
            return
        seconds = math.fsum(float(line.get("seconds", 0)) for line in recent)
        tokens = math.fsum(float(line.get("tokens_per_s", 0)) * float(line.get("seconds", 0)) for line in recent)
        state.step = max(state.step, int(recent[-1].get("step", 0)))
        state.seconds_a_step = seconds / len(recent)
        state.tokens_per_s = tokens / seconds if seconds else None
        state.mfu = recent[-1].get("mfu")
        state.on_gpu = "peak_gpu_bytes" in recent[-1]
        state.memory_bytes = recent[-1].get("peak_gpu_bytes" if state.on_gpu else "peak_rss_bytes")


def work_folder(root: Path, model: str) -> Path | None:
    """Return the work folder of the training of `model` that was written last, below `<results>/.work/train`."""
    found: list[tuple[float, Path]] = []
    for task in root.glob("*/task-*.json"):
        try:
            if json.loads(task.read_text(encoding="utf-8"))["spec"]["model"] == model:
                found.append((task.stat().st_mtime, task.parent))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return max(found)[1] if found else None


def _steps(pack: Path) -> int | None:
    try:
        return int(json.loads((pack / "pack.json").read_text(encoding="utf-8"))["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _json_lines(tail: Tail) -> list[dict[str, Any]]:
    found = []
    for line in tail.lines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
