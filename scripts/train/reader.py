"""The packed artifact as micro-batches: (step, micro, rank) -> tokens, targets, positions. No sampler, no state.

Shape suffix: T tokens of one packed line (its rows one after another).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

IGNORE = -100
"""Target of a position from which nothing is learned."""

SCHEDULES = {
    "train": ("schedule_offsets", "schedule_rows"),
    "validation": ("validation_offsets", "validation_schedule"),
}
"""Files of each split's offsets and rows."""


@dataclass(frozen=True)
class Line:
    """One micro-batch of one rank."""

    input_ids_T: Tensor
    targets_T: Tensor
    """Already shifted: the token to predict from position t, or IGNORE."""
    position_ids_T: Tensor
    """Restart at 0 with each row."""
    lengths: list[int]
    """Tokens of each row; their sum is T."""
    rows: list[int]
    """Row numbers; empty for a micro-batch that exists only to keep the ranks in step."""
    labelled: int
    """Targets that are learned."""


class PackedRows:
    """One split of a pack artifact, memory-mapped: reading a line costs its own bytes only."""

    def __init__(self, pack: Path, split: str, *, keep_boundary: bool, bos_id: int) -> None:
        """Open `train` or `validation`; `keep_boundary` lets a row's last token learn the next row's first."""
        offsets, rows = SCHEDULES[split]
        self._offsets, self._rows = _open(pack, offsets), _open(pack, rows)
        self._bounds = _open(pack, f"{split}_rows")
        self._input_ids, self._trained = _open(pack, f"{split}_input_ids"), _open(pack, f"{split}_trained")
        self._keep_boundary, self._bos_id = keep_boundary, bos_id

    @property
    def entries(self) -> int:
        """Micro-batches in the schedule, over all steps and ranks."""
        return len(self._offsets) - 1

    def row_numbers(self, first: int, last: int) -> Any:
        """Return the rows of micro-batches `first` to `last - 1`, int64."""
        return np.asarray(self._rows[self._offsets[first] : self._offsets[last]], dtype=np.int64)

    def tokens(self, first: int, last: int) -> tuple[int, int]:
        """Return (tokens, sum of squared row lengths) of micro-batches `first` to `last - 1`."""
        rows = self.row_numbers(first, last)
        lengths = self._bounds[rows + 1] - self._bounds[rows]
        return int(lengths.sum()), int((lengths * lengths).sum())

    def digest(self, first: int, last: int) -> str:
        """Return 16 hex digits over which rows micro-batches `first` to `last - 1` read, and in which order."""
        content = np.diff(self._offsets[first : last + 1]).astype("<i8").tobytes()
        return hashlib.sha256(content + self.row_numbers(first, last).astype("<i8").tobytes()).hexdigest()[:16]

    def line(self, entry: int) -> Line:
        """Return micro-batch `entry`; an empty one is a single token from which nothing is learned."""
        rows = self.row_numbers(entry, entry + 1).tolist()
        if not rows:
            one = torch.tensor([self._bos_id])
            return Line(one, torch.full_like(one, IGNORE), torch.zeros_like(one), [1], [], 0)
        spans = [(int(self._bounds[r]), int(self._bounds[r + 1])) for r in rows]
        lengths = [stop - start for start, stop in spans]
        input_ids = np.concatenate([self._input_ids[a:b] for a, b in spans]).astype(np.int64)
        labels = np.where(np.concatenate([self._trained[a:b] for a, b in spans]) != 0, input_ids, IGNORE)
        if not self._keep_boundary:
            labels[np.cumsum([0, *lengths[:-1]])] = IGNORE
        targets = np.append(labels[1:], IGNORE)
        positions = np.concatenate([np.arange(n, dtype=np.int64) for n in lengths])
        ids_T, targets_T, positions_T = (torch.from_numpy(a) for a in (input_ids, targets, positions))
        return Line(ids_T, targets_T, positions_T, lengths, rows, int((targets != IGNORE).sum()))


def row_table(pack: Path, split: str) -> tuple[list[str], list[str]]:
    """Return (ids, sources) of a split's rows."""
    import pyarrow.parquet as pq

    table = pq.read_table(pack / f"{split}_row_ids.parquet", columns=["id", "source"])
    return table.column("id").to_pylist(), table.column("source").to_pylist()


def _open(pack: Path, name: str) -> Any:
    return np.load(pack / f"{name}.npy", mmap_mode="r", allow_pickle=False)
