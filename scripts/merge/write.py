"""One shard at a time: header, tensors, SHA-256 of the file and of each tensor while writing, resume by shard."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.artifact.digest import sha256_file
from scripts.artifact.tensors import tensor_digest
from scripts.merge.figures import Distances
from scripts.merge.plan import Plan
from scripts.merge.shards import Shard
from scripts.merge.stream import Blender

_PARTIAL = ".partial"


@dataclass(frozen=True)
class Written:
    """What is known of a finished shard."""

    plan: str
    sha256: str
    tensors: dict[str, str]
    """Digest of each tensor (see `scripts.artifact.tensors`)."""
    figures: dict[str, dict[str, float | None]]
    overflowed: int
    flushed: int


def begin(work: Path) -> None:
    """Make the work folder and remove half-written files; a living second writer of them fails at its rename."""
    work.mkdir(parents=True, exist_ok=True)
    for path in work.glob(f"*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def finished(work: Path, shard: Shard, plan: Plan) -> Written | None:
    """Return the record of a shard that an earlier attempt finished, after hashing the file again.

    Reading back (1.5 GB/s) is cheaper than a second merge and needs no trust in the disk or in a missing fsync.
    """
    path = work / shard.file
    try:
        found = Written(**json.loads(_record(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if found.plan != plan.digest or not path.is_file() or path.stat().st_size != shard.size:
        return None
    return found if sha256_file(path) == found.sha256 else None


def write_shard(
    work: Path, shard: Shard, blender: Blender, advance: Callable[[int], None], hashing: bool = True
) -> Written:
    """Merge the tensors of one shard into `work`, under its own name only once it is whole.

    Args:
        work: folder that survives a killed attempt.
        shard: what to write.
        blender: source of the finished chunks.
        advance: called with the bytes of every chunk written.
        hashing: off only in benchmarks.
    """
    path = work / shard.file
    draft = work / f".{shard.file}.{uuid.uuid4().hex}{_PARTIAL}"
    whole, sums = hashlib.sha256(shard.header), {entry.name: Distances() for entry in shard.entries}
    digests = {entry.name: _Digest(tensor_digest(entry)) for entry in shard.entries}
    tensors = [blender.plan.tensors[entry.name] for entry in shard.entries]
    with draft.open("xb", buffering=0) as handle:
        write_all(handle.fileno(), shard.header)
        for chunk in blender.blended(tensors):
            name = chunk.span.tensor.name
            if hashing:
                chunk.lent.append(digests[name].update(blender, chunk.content))
            write_all(handle.fileno(), chunk.content)
            if hashing:
                whole.update(chunk.content)
            sums[name].add(chunk.part)
            advance(chunk.content.nbytes)
    written = Written(
        blender.plan.digest,
        whole.hexdigest(),
        {name: digest.value.hexdigest() for name, digest in digests.items()},
        {name: distances.figures() for name, distances in sums.items()},
        sum(distances.overflowed for distances in sums.values()),
        sum(distances.flushed for distances in sums.values()),
    )
    os.replace(draft, path)
    _save(_record(path), asdict(written))
    return written


class _Digest:
    """A tensor's digest, taken in the blender's workers."""

    def __init__(self, value: "hashlib._Hash") -> None:
        self.value = value
        self._last: Future[None] | None = None

    def update(self, blender: Blender, content: memoryview) -> "Future[None]":
        """Hash the next bytes once those before are hashed. Waiting for them can't block: they were submitted first."""
        before = self._last

        def work() -> None:
            if before is not None:
                before.result()
            self.value.update(content)

        self._last = blender.submit(work)
        return self._last


def write_all(handle: int, content: bytes | memoryview) -> None:
    """Write every byte; a system call may take less than it was given (at most 2 GiB on Linux)."""
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.done.json")


def _save(path: Path, data: dict[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
    draft.write_text(json.dumps(data), encoding="utf-8")
    os.replace(draft, path)
