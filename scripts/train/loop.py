"""The training loop, in one sitting: resume, then step, log, evaluate, save, until the schedule ends."""

import math
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule

from scripts.recipe.train import TrainSpec
from scripts.train.checkpoint import Checkpoints
from scripts.train.facts import require_types
from scripts.train.handover import CollectiveError
from scripts.train.levers import timed_collection
from scripts.train.metrics import Metrics, Speed, line_flops
from scripts.train.model import PackedLlama
from scripts.train.optimizer import clip, local_gradients, set_learning_rate, sum_of_squares
from scripts.train.ranks import gather
from scripts.train.reader import Line, PackedRows, row_table
from scripts.train.schedule import learning_rate
from scripts.train.trackers import Trackers


class InterruptedTrainingError(Exception):
    """A signal, or the end of the door's process: a checkpoint was written, the training is to be continued."""


@dataclass
class Training:
    """All that a step needs; nothing in it is random, and only model and optimizer change."""

    spec: TrainSpec
    facts: dict[str, Any]
    """pack.json."""
    pack: Path
    model: PackedLlama
    optimizer: torch.optim.AdamW
    mesh: DeviceMesh
    rows: PackedRows
    validation: PackedRows
    metrics: Metrics
    checkpoints: Checkpoints
    stop_asked: Callable[[], bool]
    trackers: Trackers
    types: dict[str, Any] = field(default_factory=dict)
    """What the first step of this attempt found in memory (see `facts.py`)."""

    @property
    def rank(self) -> int:
        """This process's rank."""
        return self.mesh.get_local_rank()

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.mesh.size()

    def run(self, work: Path) -> Speed:
        """Train from the newest checkpoint, or the beginning, to the end of the schedule.

        Raises:
            CollectiveError: loss or gradient norm is no finite number, or a checkpoint isn't of this training.
            InterruptedTrainingError: asked to stop; a checkpoint of the reached step exists.
        """
        total, cadence = self.facts["steps"], self.spec.cadence
        step = self.checkpoints.resume(self.model, self.optimizer)
        if self.rank == 0:
            self.trackers.start(step)
        if step == 0:
            self.evaluate(0)
        speed = Speed(work, self.rank, total, step, self.world, self.trackers)
        with timed_collection(self.spec.levers.gc_steps) as collect:
            while step < total:
                line, flops = self.step(step)
                step += 1
                speed.step(step, line["loss"], line["tokens"], flops)
                if step % cadence.logging_steps == 0:
                    self.metrics.write(line)
                if step % cadence.eval_steps == 0 or step == total:
                    self.evaluate(step)
                if step % cadence.save_steps == 0 or step == total or step in cadence.keep_checkpoints:
                    self.save(step)
                collect(step)
        return speed

    def save(self, step: int) -> None:
        """Write a checkpoint and remove old ones, but not the one that would be published."""
        self.checkpoints.save(step, self.model, self.optimizer)
        best = self.best_saved() if self.spec.cadence.final_ckpt == "best_eval" else None
        self.checkpoints.rotate(self.spec.cadence.save_total_limit, best)

    def best_saved(self) -> int | None:
        """Return the saved step of lowest evaluation loss, the earlier one of equals.

        Of the steps at which every run saves alone: a signal, or a checkpoint to keep, must not change what is chosen.
        """
        losses, every, total = self.metrics.evaluations(), self.spec.cadence.save_steps, self.facts["steps"]
        saved = (s for s in self.checkpoints.steps() if s % every == 0 or s == total)
        return min((s for s in saved if s in losses), key=lambda s: (losses[s], s), default=None)

    def step(self, step: int) -> tuple[dict[str, Any], float]:
        """Take optimizer step `step` (0-based); return its line of metrics.jsonl and its FLOPs over all ranks."""
        accumulation = self.facts["gradient_accumulation_steps"]
        first = step * accumulation * self.world
        lines = [self.rows.line(first + m * self.world + self.rank) for m in range(accumulation)]
        # Label counts of all ranks before any backward pass: only then each token can weigh the same.
        told = gather([float(self.stop_asked()), *(float(line.labelled) for line in lines)], self.mesh)
        if any(row[0] for row in told):
            self._stop(step)
        counts = [row[1:] for row in told]
        sums = []
        for micro, line in enumerate(lines):
            loss = self.model(self.on_device(line))
            (loss * self.loss_scale(counts, micro)).backward()
            sums.append(loss.detach())
        grads = local_gradients(self.model)
        told = gather([sum_of_squares(grads), *map(float, sums)], self.mesh)
        losses = [row[1:] for row in told]
        norm = math.sqrt(math.fsum(row[0] for row in told)) if all(math.isfinite(row[0]) for row in told) else math.nan
        self._require_finite(step, losses, norm)
        clip(grads, norm, self.spec.optimizer.max_grad_norm)
        rate = self._rate(step)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.step()
        self.types = self.types or require_types(self.spec, self.model, self.optimizer, self.mesh)
        self.optimizer.zero_grad(set_to_none=True)
        last = first + accumulation * self.world
        tokens, squares = self.rows.tokens(first, last)
        metrics = {
            "step": step + 1,
            "epoch": (step + 1) / self.facts["steps_per_epoch"],
            "loss": self.mean_loss(losses, counts),
            "learning_rate": rate,
            "grad_norm": norm,
            "tokens": tokens,
            "rows_digest": self.rows.digest(first, last),
        }
        return metrics, line_flops(self.model.config, tokens, squares)

    def loss_scale(self, counts: list[list[float]], micro: int) -> float:
        """Return the factor of a micro-batch's summed loss; FSDP then averages the gradients over the ranks.

        Args:
            counts: labelled tokens by rank and micro-batch.
            micro: which micro-batch of this rank.
        """
        if self.spec.optimizer.loss_mean == "token":
            # Times world, since FSDP divides by it: every labelled token of the global step weighs 1 / all.
            return self.world / max(1.0, math.fsum(c for row in counts for c in row))
        own = counts[self.rank][micro]
        return 1.0 / (own * len(counts[0])) if own else 0.0

    def mean_loss(self, losses: list[list[float]], counts: list[list[float]]) -> float:
        """Return the loss that was minimised, from summed losses and labelled tokens by rank and micro-batch."""
        pairs = [(s, c) for row, n in zip(losses, counts, strict=True) for s, c in zip(row, n, strict=True)]
        if self.spec.optimizer.loss_mean == "token":
            return math.fsum(s for s, _ in pairs) / max(1.0, math.fsum(c for _, c in pairs))
        return math.fsum(s / c for s, c in pairs if c) / len(pairs)

    def evaluate(self, step: int) -> None:
        """Write the token-mean loss over all held-out rows, as a whole and for each source."""
        if not self.validation.entries:
            return
        _, sources = row_table(self.pack, "validation")
        names = sorted(set(sources))
        sums = {name: [0.0, 0.0] for name in names}
        self.model.train(False)
        with torch.no_grad():
            for batch in range(self.validation.entries // self.world):
                line = self.validation.line(batch * self.world + self.rank)
                losses = self.model(self.on_device(line), per_token=True).double().cpu()
                labelled = line.targets_T >= 0
                stop = 0
                for row, length in zip(line.rows, line.lengths[: len(line.rows)], strict=True):
                    part, stop = slice(stop, stop + length), stop + length
                    total = sums[sources[row]]
                    total[0] += float(losses[part].sum())
                    total[1] += float(labelled[part].sum())
        self.model.train()
        # Without a backward pass FSDP leaves the root's parameters whole, and those of `unsharded_last_layers`: neither
        # shards nor checkpoint could be read.
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        told = gather([x for name in names for x in sums[name]], self.mesh)
        loss_of = {n: math.fsum(row[2 * i] for row in told) for i, n in enumerate(names)}
        count_of = {n: math.fsum(row[2 * i + 1] for row in told) for i, n in enumerate(names)}
        tokens = math.fsum(count_of.values())
        if not all(map(math.isfinite, loss_of.values())):
            raise CollectiveError(f"evaluation after step {step}: loss is not finite on {loss_of}; lower learning_rate")
        self.metrics.write(
            {
                "step": step,
                "eval_loss": math.fsum(loss_of.values()) / max(1.0, tokens),
                "eval_loss_by_source": {n: loss_of[n] / count_of[n] for n in names if count_of[n]},
                "eval_tokens": int(tokens),
            }
        )

    def on_device(self, line: Line) -> Line:
        """Return the line with its tensors where the model computes."""
        device = self.mesh.device_type
        return replace(
            line,
            input_ids_T=line.input_ids_T.to(device),
            targets_T=line.targets_T.to(device),
            position_ids_T=line.position_ids_T.to(device),
        )

    def _rate(self, step: int) -> float:
        settings = self.spec.optimizer
        return learning_rate(
            step,
            peak=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            total_steps=self.facts["steps"],
            quadratic=settings.lr_quadratic_warmup,
        )

    def _stop(self, step: int) -> None:
        if step and step not in self.checkpoints.steps():
            self.save(step)
        text = f"stopped after step {step} of {self.facts['steps']}"
        raise InterruptedTrainingError(f"{text}; run the same command again to go on from there")

    def _require_finite(self, step: int, losses: list[list[float]], norm: float) -> None:
        bad = [(rank, micro) for rank, row in enumerate(losses) for micro, x in enumerate(row) if not math.isfinite(x)]
        if not bad and math.isfinite(norm):
            return
        entries = len(losses[0]) * self.world
        first = step * entries
        what, rows = "gradient norm over all ranks is not finite", self.rows.row_numbers(first, first + entries)
        if bad:
            rank, micro = bad[0]
            what = f"loss is {losses[rank][micro]} on rank {rank}, micro-batch {micro}"
            rows = self.rows.row_numbers(first + micro * self.world + rank, first + micro * self.world + rank + 1)
        ids, _ = row_table(self.pack, "train")
        named = ", ".join(ids[r] for r in rows[:20]) + (f" and {len(rows) - 20} more" if len(rows) > 20 else "")
        text = f"step {step + 1} of {self.facts['steps']}: {what}; rows: {named}"
        raise CollectiveError(f"{text}; look at these rows, or lower optimizer.learning_rate")


def stop_watch() -> Callable[[], bool]:
    """Return a function that says whether to stop: after SIGTERM, SIGINT or SIGUSR1, or once the door is gone.

    The door holds the other end of standard input and writes nothing: readable means closed.
    """
    caught: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, _frame: caught.append(number))

    def asked() -> bool:
        return bool(caught or select.select([sys.stdin], [], [], 0)[0])

    return asked
