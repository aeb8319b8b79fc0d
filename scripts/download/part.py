"""One file being received: hashed while it is written, and complete under its name only after its digest is right."""

import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from scripts.artifact.stage import StageError
from scripts.download.weights import WeightHasher

BLOCK = 1 << 20
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is received."""

    sha256: str | None = None
    """From the recipe's pin, else from the hub at a fixed commit."""
    git_sha1: str | None = None
    """Git blob id, which the hub gives for small files of a commit; needs `bytes`."""
    bytes: int | None = None


class WrongBytesError(StageError):
    """The whole file was received and is not the file that was asked for; what was received is gone."""


class PartFile:
    """`parts/<name>` below the work folder; becomes `files/<name>` in `finish`.

    Bytes that an earlier attempt left are hashed again when the file is opened, so the digest always covers all.
    """

    def __init__(self, work: Path, name: str, expected: Expected) -> None:
        """Open or create the part of the file `name` (its path in the artifact)."""
        self.name, self.expected = name, expected
        self.path, self._part = work / "files" / name, work / "parts" / name
        for path in (self.path, self._part):
            path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():  # an earlier attempt finished this file, but not all the others
            self.path.replace(self._part)
        self._handle = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._begin()
        while block := os.read(self._handle, BLOCK):
            self._count(block)
        self.kept = self.size
        """Bytes that were there already."""
        if expected.bytes is not None and self.size > expected.bytes:
            self.restart()

    def _begin(self) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._git_sha1 = hashlib.sha1(f"blob {self.expected.bytes}\0".encode(), usedforsecurity=False)
        # Offsets can't be checked against an unknown length; such a file is read once more when it is published.
        known = self.expected.bytes if self.name.endswith(".safetensors") else None
        self.weights = WeightHasher(self.name, known) if known is not None else None

    def _count(self, block: bytes) -> None:
        self._sha256.update(block)
        if self.expected.git_sha1:
            self._git_sha1.update(block)
        if self.weights is not None:
            self.weights.feed(block)
        self.size += len(block)

    def restart(self) -> None:
        """Drop all bytes."""
        os.lseek(self._handle, 0, os.SEEK_SET)
        os.ftruncate(self._handle, 0)
        self._begin()
        self.kept = 0

    def write(self, block: bytes) -> None:
        """Append `block`.

        Raises:
            StageError: no space left, or more bytes than the file has.
        """
        total = self.expected.bytes
        if total is not None and self.size + len(block) > total:
            self.close()
            self._part.unlink()
            raise WrongBytesError(f"{self.name}: longer than the {total:,} bytes expected; check the pin in the recipe")
        view = memoryview(block)
        try:
            while view:
                view = view[os.write(self._handle, view) :]
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            of = f" of {total:,}" if total is not None else ""
            raise StageError(
                f"{self.name}: no space left for {self._part} after {self.size:,}{of} bytes; "
                "make room and run snakemake again: it goes on from there"
            ) from None
        self._count(block)

    def finish(self) -> str:
        """Check length and digest, give the file its name, and return its SHA-256.

        Raises:
            WrongBytesError: with what was expected and what was found.
        """
        found, total = self._sha256.hexdigest(), self.expected.bytes
        fault = ""
        if total is not None and self.size != total:
            fault = f"has {self.size:,} bytes, expected {total:,}"
        elif self.expected.sha256 is not None and found != self.expected.sha256:
            fault = f"has SHA-256 {found}, expected {self.expected.sha256} ({self.size:,} bytes)"
        elif self.expected.git_sha1 is not None and self._git_sha1.hexdigest() != self.expected.git_sha1:
            fault = f"has git blob id {self._git_sha1.hexdigest()}, expected {self.expected.git_sha1} of the commit"
        self.close()
        if fault:
            self._part.unlink()
            raise WrongBytesError(
                f"{self.name}: {fault}; either the bytes were changed on the way, or the pin is not for this file: "
                f"if you changed it, `python -m scripts.recipe pin FOLDER {self.name}` prints the new pin"
            )
        if self.weights is not None:
            self.weights.require_sound()
        self._part.replace(self.path)
        return found

    def close(self) -> None:
        """Close the file; the part stays for the next attempt."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
