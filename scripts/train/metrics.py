"""What is measured: metrics.jsonl (deterministic, published) and speed.jsonl (volatile, stays in the work folder)."""

import contextlib
import hashlib
import json
import math
import os
import resource
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from scripts.train.trackers import Trackers

# Dense bf16 peaks of the data sheets, FLOP/s; MFU is against these.
_PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "A40": 149.7e12}
_PROGRESS_S = 5.0
SPEED_POINTS = 200
"""Most points of the speed series in provenance.json: a chart shows no more."""
SPIKE_WINDOW, SPIKE_DEVIATIONS = 64, 6.0


def round9(value: float) -> float:
    """Return `value` with 9 significant digits: all that an fp32 sum can mean, and short lines."""
    return float(f"{value:.9g}")


def is_spike(loss: float, before: list[float]) -> bool:
    """Return whether a loss is more than 6 standard deviations above the mean of the up to 64 before it.

    Fewer than 16 say nothing. The rule depends on metrics.jsonl alone, so a resumed training notes the same steps.
    """
    if len(before) < SPIKE_WINDOW // 4:
        return False
    mean = math.fsum(before) / len(before)
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in before) / len(before))
    return loss > mean + SPIKE_DEVIATIONS * deviation


class Metrics:
    """The metrics.jsonl of a training; only rank 0 writes, the others' calls do nothing."""

    def __init__(self, work: Path, rank: int, trackers: Trackers | None = None) -> None:
        self._path, self._rank, self._trackers = work / "metrics.jsonl", rank, trackers
        self._losses: deque[float] = deque(maxlen=SPIKE_WINDOW)
        self.spikes: list[int] = []
        """Steps whose loss was noted as a spike, in this attempt."""

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def write(self, line: dict[str, Any]) -> None:
        """Append one line, floats rounded; a loss far above the ones before gets `"loss_spike": true`."""
        if self._rank == 0:
            line = _rounded(line)
            if "loss" in line:
                if is_spike(line["loss"], list(self._losses)):
                    line["loss_spike"] = True
                    self.spikes.append(line["step"])
                    text = f"loss {line['loss']:.4f} at step {line['step']} is a spike; rows {line['rows_digest']}"
                    print(f"train: note: {text}", file=sys.stderr, flush=True)
                self._losses.append(line["loss"])
            if self._trackers is not None:
                self._trackers.log(line)
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(line, ensure_ascii=False) + "\n")

    def flushed(self) -> tuple[int, str]:
        """Flush to the disk and return (length in bytes, SHA-256)."""
        with self._path.open("a+b") as handle:
            os.fsync(handle.fileno())
            handle.seek(0)
            content = handle.read()
        return len(content), hashlib.sha256(content).hexdigest()

    def digest_of(self, length: int) -> str:
        """Return the SHA-256 of the first `length` bytes, or an empty text if there are fewer."""
        content = self._path.read_bytes()[:length] if self._path.is_file() else b""
        return hashlib.sha256(content).hexdigest() if len(content) == length else ""

    def truncate(self, length: int) -> None:
        """Cut the file back to `length` bytes, making it if needed."""
        if self._rank == 0:
            with self._path.open("a+b") as handle:
                handle.truncate(length)
            lines = map(json.loads, self._path.read_text(encoding="utf-8").splitlines())
            self._losses.extend(line["loss"] for line in lines if "loss" in line)

    def evaluations(self) -> dict[int, float]:
        """Return {step: evaluation loss} of all lines so far."""
        if not self._path.is_file():
            return {}
        lines = map(json.loads, self._path.read_text(encoding="utf-8").splitlines())
        return {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round9(value) if isinstance(value, float) else value


def line_flops(config: Any, tokens: int, squares: int) -> float:
    """Return the FLOPs of forward and backward pass over packed rows: 6 (N - V D) a token and attention's share.

    Attention costs 6 L D S a token at mean causal span S = sum(length^2) / sum(length); recomputation isn't counted.
    """
    head = config.hidden_size // config.num_attention_heads
    attention: int = config.hidden_size * (2 * config.hidden_size + 2 * config.num_key_value_heads * head)
    layer: int = attention + 3 * config.hidden_size * config.intermediate_size
    # N - V D: all matrices but the input embedding, which multiplies nothing.
    matrices: int = config.num_hidden_layers * layer + config.vocab_size * config.hidden_size
    return 6.0 * matrices * tokens + 6.0 * int(config.num_hidden_layers * config.hidden_size) * squares


def thinned(path: Path, limit: int = SPEED_POINTS) -> list[dict[str, Any]]:
    """Return speed.jsonl as at most `limit` points, each the means (and the last peak) of the steps up to its own.

    A step that a resumed attempt ran again counts as it ran last; a line that a killed attempt tore is left out.
    """
    lines: dict[int, dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            line = json.loads(text)
            lines[line["step"]] = line
    steps = [lines[step] for step in sorted(lines)]
    size = max(1, -(-len(steps) // limit))
    points = []
    for start in range(0, len(steps), size):
        group = steps[start : start + size]
        seconds = sum(line["seconds"] for line in group)
        point = {**group[-1], "seconds": seconds}
        for key in ("tokens_per_s", "mfu"):
            if key in point:
                point[key] = sum(line[key] * line["seconds"] for line in group) / seconds
        points.append(point)
    return points


class Speed:
    """Tokens/s, MFU and memory; and a progress line on stderr every few seconds. Rank 0 only."""

    def __init__(
        self,
        work: Path,
        rank: int,
        total_steps: int,
        first_step: int,
        world: int,
        trackers: Trackers | None = None,
    ) -> None:
        self._trackers = trackers
        # A bar for people; in a log file a line every few seconds.
        show = rank == 0 and sys.stderr.isatty()
        self._bar = tqdm(total=total_steps, initial=first_step, unit="step", disable=not show)
        self._path, self._rank, self._world = work / "speed.jsonl", rank, world
        self._total, self._first, self._tokens, self._flops = total_steps, first_step, 0, 0.0
        self._began = self._last = self._shown = time.perf_counter()
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        self._peak = next((peak for gpu, peak in _PEAKS.items() if gpu in name), None)

    def step(self, step: int, loss: float, tokens: int, flops: float) -> None:
        """Record optimizer step `step` (1-based)."""
        if self._rank:
            return
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._tokens, self._flops = self._tokens + tokens, self._flops + flops
        line = {"step": step, "seconds": seconds, "tokens_per_s": tokens / seconds, **self._memory()}
        if self._peak:
            line["mfu"] = flops / seconds / (self._peak * self._world)
        with self._path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
        if self._trackers is not None:
            self._trackers.log({k: v for k, v in line.items() if k != "seconds"})
        if not self._bar.disable:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {tokens / seconds:,.0f} tok/s", refresh=False)
            self._bar.update()
        elif now - self._shown >= _PROGRESS_S or step == self._total:
            self._shown = now
            eta = (now - self._began) / (step - self._first) * (self._total - step)
            rate = self._tokens / (now - self._began)
            text = f"train: step {step}/{self._total}, loss {loss:.4f}, {rate:,.0f} tok/s, {eta:.0f} s left"
            print(text, file=sys.stderr, flush=True)

    def facts(self) -> dict[str, Any]:
        """Return the means of this attempt, for provenance.json."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        facts: dict[str, Any] = {"train_s": seconds, "tokens_per_s": self._tokens / seconds, **self._memory()}
        facts["resumed_at_step"] = self._first
        facts["speed"] = thinned(self._path)
        if self._peak:
            facts["mfu"] = self._flops / seconds / (self._peak * self._world)
        return facts

    @staticmethod
    def _memory() -> dict[str, int]:
        if torch.cuda.is_available():
            return {"peak_gpu_bytes": torch.cuda.max_memory_allocated()}
        return {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
