"""Which rows each (step, rank) reads: decided once, here, so that training needs no sampler and resume is a number."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from scripts.artifact.stage import StageError
from scripts.pack.best_fit import best_fit
from scripts.pack.consecutive import permutation, stretched, walked
from scripts.recipe.base import keyed_hash
from scripts.recipe.pack import PackSpec


@dataclass(frozen=True)
class Shape:
    """Sizes of one optimizer step."""

    sequence_len: int
    micro_batch_size: int
    accumulation: int
    processes: int

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a step, over all ranks."""
        return self.accumulation * self.processes

    @classmethod
    def of(cls, spec: PackSpec) -> Self:
        """Return the shape that a recipe asks for."""
        settings = spec.settings
        accumulation = settings.gradient_accumulation_steps
        return cls(settings.sequence_len, settings.micro_batch_size, accumulation, spec.processes)


@dataclass(frozen=True)
class Schedule:
    """Micro-batch i reads `rows[offsets[i]:offsets[i + 1]]`; i = (step * accumulation + micro) * processes + rank."""

    offsets: NDArray[np.int64]
    rows: NDArray[np.int32]
    steps_per_epoch: int
    packing_efficiency: float
    """Filled share of bins (`best_fit`) or of micro-batches (`consecutive`), the last step's gaps left out."""


def train_schedule(lengths: NDArray[np.int64], shape: Shape, spec: PackSpec) -> Schedule:
    """Return the schedule of all epochs. With `all_rows` each epoch reads every row exactly once.

    Raises:
        StageError: `rule_0.99` leaves no step.
    """
    if spec.settings.packing == "best_fit":
        return _best_fit_schedule(lengths, shape, spec)
    return _consecutive_schedule(lengths, shape, spec)


def validation_schedule(lengths: NDArray[np.int64], shape: Shape, spec: PackSpec) -> Schedule:
    """Return one evaluation pass over every row, unshuffled, with the same packer; entry b * processes + rank."""
    once = Shape(shape.sequence_len, shape.micro_batch_size, 1, shape.processes)
    if not len(lengths):
        return Schedule(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int32), 0, 1.0)
    if spec.settings.packing == "best_fit":
        offsets, rows = best_fit(lengths, shape.sequence_len)
        bins = np.arange(len(offsets) - 1)
        batches = _dealt(bins, once)
        fill = int(lengths.sum()) / (len(bins) * shape.sequence_len)
        return _joined([[rows[offsets[b] : offsets[b + 1]] for b in batch] for batch in batches], once, 1, fill)
    capacity = shape.sequence_len * shape.micro_batch_size
    ranks = [walked(range(r, len(lengths), once.processes), lengths, capacity) for r in range(once.processes)]
    fill = int(lengths.sum()) / (sum(map(len, ranks)) * capacity)
    return _joined(_interleaved(ranks, max(map(len, ranks))), once, 1, fill)


def _best_fit_schedule(lengths: NDArray[np.int64], shape: Shape, spec: PackSpec) -> Schedule:
    """Pack once; shuffle bins in each epoch by keyed hash, and deal them out in that order."""
    offsets, rows = best_fit(lengths, shape.sequence_len)
    bins = len(offsets) - 1
    fill = int(lengths.sum()) / (bins * shape.sequence_len)
    steps = None
    if spec.settings.epoch_len == "rule_0.99":
        full = bins // (shape.micro_batches * shape.micro_batch_size)
        steps = _rule_steps(int(lengths.sum()), fill, shape, full * shape.accumulation)
    batches: list[list[NDArray[np.int64]]] = []
    for epoch in range(1, spec.settings.num_epochs + 1):
        hashes = np.fromiter((keyed_hash(spec.seed, "epoch", epoch, b) for b in range(bins)), np.uint64, bins)
        dealt = _dealt(np.argsort(hashes, kind="stable"), shape)
        kept = dealt if steps is None else dealt[: steps * shape.micro_batches]
        batches += [[rows[offsets[b] : offsets[b + 1]] for b in batch] for batch in kept]
    return _joined(batches, shape, spec.settings.num_epochs, fill)


def _dealt(bins: NDArray[np.int64], shape: Shape) -> list[NDArray[np.int64]]:
    """Return the bins of each micro-batch: `micro_batch_size` each, and what is left spread over the last step."""
    step = shape.micro_batches * shape.micro_batch_size
    full = (len(bins) - 1) // step * shape.micro_batches
    head = np.split(bins[: full * shape.micro_batch_size], full) if full else []
    return [*head, *np.array_split(bins[full * shape.micro_batch_size :], shape.micro_batches)]


def _consecutive_schedule(lengths: NDArray[np.int64], shape: Shape, spec: PackSpec) -> Schedule:
    """As the original run: rank r walks every `processes`-th row of a permutation (see `consecutive`)."""
    capacity, processes = shape.sequence_len * shape.micro_batch_size, shape.processes
    ruled = spec.settings.epoch_len == "rule_0.99"
    epochs = []
    for epoch in range(1, spec.settings.num_epochs + 1):
        order = permutation(len(lengths), spec.seed + epoch)
        if ruled:
            # The original pads with the permutation's own head, so that every rank has as many rows.
            order = np.resize(order, math.ceil(len(order) / processes) * processes)
        epochs.append([walked(order[r::processes].tolist(), lengths, capacity) for r in range(processes)])
    first = [batch for rank in epochs[0] for batch in rank]
    fill = sum(int(lengths[batch].sum()) for batch in first) / (len(first) * capacity)
    counts = [len(rank) for ranks in epochs for rank in ranks]
    if ruled:
        steps = _rule_steps(int(lengths.sum()), fill, shape, min(counts))
        per_rank = steps * shape.accumulation
    else:
        per_rank = math.ceil(max(counts) / shape.accumulation) * shape.accumulation
    batches = [batch for ranks in epochs for batch in _interleaved(ranks, per_rank)]
    return _joined(batches, shape, spec.settings.num_epochs, fill)


def _interleaved(ranks: Sequence[list[list[int]]], count: int) -> list[list[Sequence[int]]]:
    """Return `count` micro-batches of each rank, rank after rank within each."""
    even = [stretched(rank, count) for rank in ranks]
    return [[rank[i]] for i in range(count) for rank in even]


def _rule_steps(tokens: int, fill: float, shape: Shape, available: int) -> int:
    """Return the steps of an epoch by the original's estimate.

    Micro-batches of a rank: floor(0.99 * (tokens // processes) / eff // sequence_len // micro_batch_size) - 1, where
    eff is the filled share rounded up to 0.01; the original measured it on an unseeded sample, this on epoch 1.

    Raises:
        StageError: no step is left.

    Source:
        axolotl 35130711d, utils/dataloader.py.
    """
    eff = math.ceil(100 * fill) / 100
    rule = int(0.99 * (tokens // shape.processes) / eff // shape.sequence_len // shape.micro_batch_size) - 1
    steps = min(rule, available) // shape.accumulation
    if steps < 1:
        raise StageError(
            f"epoch_len rule_0.99 leaves no step: {tokens:,} tokens fill {max(rule, 0)} micro-batches for each of "
            f"{shape.processes} processes; use epoch_len all_rows, more rows, or smaller batches"
        )
    return steps


def _joined(
    batches: Iterable[Sequence[Sequence[int] | NDArray[np.int64]]], shape: Shape, epochs: int, fill: float
) -> Schedule:
    """Return the schedule of micro-batches that are lists of pieces of rows."""
    parts, sizes = [], [0]
    for batch in batches:
        parts += [np.asarray(rows, dtype=np.int32) for rows in batch]
        sizes.append(sum(len(rows) for rows in batch))
    offsets = np.cumsum(np.array(sizes, dtype=np.int64))
    steps = (len(sizes) - 1) // (shape.micro_batches * epochs)
    return Schedule(offsets, np.concatenate(parts), steps, fill)
