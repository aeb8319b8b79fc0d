"""Remembered digests: a file whose stat has not changed since it was hashed is not read again."""

import contextlib
import json
import os
import time
import uuid
from pathlib import Path

# A file changed within the clock's granularity after hashing keeps its stat (git calls this "racy"):
# entries younger than this are not trusted. 2 s covers 1-second file systems.
RACY_NS = 2_000_000_000


class StatCache:
    """Digests of one artifact's files, keyed by size, mtime, ctime and inode; one small file an artifact."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, list[object]] = {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self._entries = dict(content) if isinstance(content, dict) else {}
        except (OSError, ValueError, RecursionError):
            pass
        self._changed = False

    def known(self, name: str, now: list[int]) -> str | None:
        """Return the digest of a file whose stat (see `stat_list`) is the one it was hashed with, else None."""
        entry = self._entries.get(name)
        if isinstance(entry, list) and len(entry) == 6 and entry[:4] == now:
            changed, hashed = entry[2], entry[4]
            if isinstance(changed, int) and isinstance(hashed, int) and hashed - changed > RACY_NS:
                return str(entry[5])
        return None

    def remember(self, name: str, digest: str, stat: list[int]) -> None:
        """Keep the digest of a file whose stat was the same before and after it was read."""
        self._entries[name] = [*stat, time.time_ns(), digest]
        self._changed = True

    def save(self) -> None:
        """Write the cache if it changed; failing to do so costs only time later."""
        if not self._changed:
            return
        draft = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(self._entries), encoding="utf-8")
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
