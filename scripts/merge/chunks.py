"""Reading both models chunk by chunk into buffers that are used over and over."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.artifact.stage import StageError
from scripts.artifact.tensors import ITEM_BYTES
from scripts.merge.arithmetic import Chunk, Values
from scripts.merge.models import Located
from scripts.merge.plan import TensorPlan

CHUNK = 1 << 20
"""Elements read at once, 2 MiB of bf16: large enough that Python's share vanishes, small enough for the L3 cache."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Span:
    """One chunk of one tensor, not read yet."""

    tensor: TensorPlan
    start: int
    stop: int
    second: int | None
    """The second model's first element, None where it has no such row."""


def spans(tensor: TensorPlan) -> Iterator[Span]:
    """Yield a tensor's chunks in order; where they lie depends on the tensor alone."""
    for piece in tensor.pieces:
        for start in range(piece.start, piece.stop, CHUNK):
            second = None if piece.second is None else piece.second + start - piece.start
            yield Span(tensor, start, min(start + CHUNK, piece.stop), second)


class Buffers:
    """Memory of one chunk: both inputs and the output, in their own formats."""

    def __init__(self) -> None:
        # Bytes are touched only as far as a format needs them: 16-bit models never map the upper half.
        self.first, self.second, self.out = (np.empty(4 * CHUNK, np.uint8) for _ in range(3))


class Files:
    """Open files by path; positional reads, so that threads can share them."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()

    def open(self, path: Path) -> None:
        """Open a file; call before the threads start."""
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDONLY)

    def read(self, at: Located, start: int, stop: int, into: Bytes) -> Values:
        """Read elements [start, stop) of a tensor and return them as a view of `into`.

        Raises:
            StageError: the file ends early.
        """
        item = ITEM_BYTES[at.entry.dtype]
        wanted, offset = into[: (stop - start) * item], at.entry.start + start * item
        done = 0
        while done < len(wanted):
            got = os.preadv(self._open[at.path], [wanted.data[done:]], offset + done)
            if got == 0:
                raise StageError(f"{at.path}: ends inside tensor {at.entry.name!r}; it changed while it was read")
            done += got
        return _values(at.entry.dtype, wanted)

    def load(self, span: Span, buffers: Buffers, dtype: str) -> Chunk:
        """Read both inputs of a chunk; the output is a view that waits to be filled."""
        tensor, size = span.tensor, span.stop - span.start
        first = self.read(tensor.first, span.start, span.stop, buffers.first)
        second = None
        if span.second is not None:
            second = self.read(tensor.second, span.second, span.second + size, buffers.second)
        out = _values(dtype, buffers.out[: size * ITEM_BYTES[dtype]])
        return Chunk(tensor.name, span.start, first, second, out)


def _values(dtype: str, content: Bytes) -> Values:
    return Values(dtype, content.view(np.uint32) if ITEM_BYTES[dtype] == 4 else content.view(np.uint16))
