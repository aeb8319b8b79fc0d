"""Remembered digests: a file whose stat has not changed since it was hashed is not read again."""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Collection, Iterable
from pathlib import Path

# A file changed within the clock's granularity after hashing keeps its stat (git calls this "racy"):
# digests of files younger than this are not kept. 2 s covers 1-second file systems.
RACY_NS = 2_000_000_000


class StatCache:
    """Digests of one artifact's files, kept with size, mtime, ctime and inode; one small file an artifact.

    Stats and digests are two tables, so that a whole artifact is compared at once: a thousand files in 0.3 ms.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stats: dict[str, object] = {}
        self._digests: dict[str, object] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError, TypeError, LookupError):
            content = json.loads(path.read_text(encoding="utf-8"))
            stats, digests = content["stats"], content["digests"]
            if isinstance(stats, dict) and isinstance(digests, dict):
                self._stats, self._digests = stats, digests
        self._changed = False

    def all_known(self, now: dict[str, list[int]], claimed: dict[str, str]) -> bool:
        """Whether these are all files, each has the stat it was hashed with, and had the digest that is claimed."""
        return self._stats == now and self._digests == claimed

    def known(self, name: str, now: list[int]) -> str | None:
        """Return the digest of a file whose stat (see `stat_list`) is the one it was hashed with, else None."""
        return str(self._digests.get(name)) if self._stats.get(name) == now else None

    def remember(self, name: str, digest: str, stat: list[int]) -> None:
        """Keep the digest of a file whose stat was the same before and after it was read."""
        if time.time_ns() - stat[2] > RACY_NS:
            self._stats[name], self._digests[name] = stat, digest
            self._changed = True
        else:
            self._forget([name])

    def keep_only(self, names: Collection[str]) -> None:
        """Forget files that an earlier artifact of this name had: with them, no comparison of all would succeed."""
        self._forget([name for name in {**self._stats, **self._digests} if name not in names])

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            known = (self._stats.pop(name, None), self._digests.pop(name, None))
            self._changed |= known != (None, None)

    def save(self) -> None:
        """Write the cache if it changed; failing to do so costs only time later."""
        if not self._changed:
            return
        draft = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps({"stats": self._stats, "digests": self._digests}), encoding="utf-8")
            os.replace(draft, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


def stat_list(found: os.stat_result) -> list[int]:
    """Return what must stay for a digest to be believed: size, mtime, ctime, inode."""
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def stat_of(path: Path) -> list[int]:
    """Return `stat_list` of a path."""
    return stat_list(path.stat())
