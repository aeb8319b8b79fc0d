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

    def known(self, path: Path, name: str) -> str | None:
        """Return the digest of a file that has not changed since it was hashed, else None."""
        entry = self._entries.get(name)
        if isinstance(entry, list) and len(entry) == 6 and entry[:4] == _stat(path):
            changed, hashed = entry[2], entry[4]
            if isinstance(changed, int) and isinstance(hashed, int) and hashed - changed > RACY_NS:
                return str(entry[5])
        return None

    def remember(self, path: Path, name: str, digest: str, before: list[int]) -> None:
        """Keep a digest, if the file's stat is still the one taken before it was read."""
        if _stat(path) == before:
            self._entries[name] = [*before, time.time_ns(), digest]
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


def _stat(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


stat_of = _stat
