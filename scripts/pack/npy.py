"""A one-dimensional .npy file that grows while it is written, so that a split of any size needs little memory."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class NpyWriter:
    """Context manager; the result has the bytes that `numpy.save` gives for the joined array."""

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self._dtype, self._count = np.dtype(dtype).newbyteorder("<"), 0
        self._handle = path.open("wb")
        self._header()
        self._start = self._handle.tell()

    def _header(self) -> None:
        # numpy pads its header for an axis of up to 21 digits, so the final one has the first one's length.
        fields = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._count,)}
        np.lib.format.write_array_header_1_0(self._handle, fields)

    def append(self, values: NDArray[Any]) -> None:
        """Write one more piece `[n]`."""
        self._handle.write(values.astype(self._dtype, copy=False).tobytes())
        self._count += len(values)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._handle:
            self._handle.seek(0)
            self._header()
            assert self._handle.tell() == self._start
