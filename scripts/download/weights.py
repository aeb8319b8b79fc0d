"""Digests of the tensors of a safetensors file while it streams by, so that weights are not read again."""

import hashlib
import io
import struct
from collections import deque

from scripts.artifact.digest import ArtifactError
from scripts.artifact.tensors import MAX_HEADER_BYTES, TensorEntry, parse_header, tensor_digest


class WeightHasher:
    """Feed it all bytes of a file in order; `tensors` then holds {name: SHA-256 of dtype, shape and bytes}.

    A bad header is only remembered: bytes that were changed on the way should be reported by their digest first.
    """

    def __init__(self, label: str, size: int) -> None:
        """Prepare for a file of `size` bytes."""
        self.tensors: dict[str, str] = {}
        self._label, self._size = label, size
        self._head = bytearray()
        self._waiting: deque[TensorEntry] | None = None
        self._error: ArtifactError | None = None
        self._at = 0
        self._digest = hashlib.sha256()

    def feed(self, block: bytes) -> None:
        """Take the next bytes."""
        if self._error is not None:
            return
        view = memoryview(block)
        if self._waiting is None:
            self._head += block
            try:
                self._waiting = self._read_header()
            except ArtifactError as error:
                self._error = error
            if self._waiting is None:
                return
            view = memoryview(bytes(self._head))[self._at :]
            self._head.clear()
        while self._waiting and (view or self._waiting[0].stop == self._at):
            entry = self._waiting[0]
            if self._at == entry.start:
                self._digest = tensor_digest(entry)
            taken = min(len(view), entry.stop - self._at)
            self._digest.update(view[:taken])
            self._at += taken
            view = view[taken:]
            if self._at == entry.stop:
                self.tensors[entry.name] = self._digest.hexdigest()
                self._waiting.popleft()

    def _read_header(self) -> deque[TensorEntry] | None:
        """Return the tensors in order of their bytes once the header is complete, and move to its end."""
        if len(self._head) < 8:
            return None
        (length,) = struct.unpack("<Q", self._head[:8])
        if length <= min(MAX_HEADER_BYTES, self._size - 8) and len(self._head) < 8 + length:
            return None
        entries = parse_header(io.BytesIO(self._head), self._size, self._label)
        self._at = 8 + length
        return deque(entries)

    def require_sound(self) -> None:
        """Raise the error of a bad header.

        Raises:
            ArtifactError: not a valid safetensors file, though its bytes are the expected ones.
        """
        if self._error is not None:
            raise self._error
