"""What can be removed: leftovers, and artifacts that neither the recipe nor a lock names."""

import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.artifact.digest import RECORD, ArtifactError
from scripts.artifact.lock import read_lock
from scripts.artifact.places import WORK, artifact_folders
from scripts.artifact.record import read_record
from scripts.artifact.store import QUARANTINE, Store
from scripts.recipe.base import STAGES

DRAFT_AGE_S = 86_400
"""A store's draft may belong to a job on another machine; a copy of 26 GB takes minutes."""


@dataclass(frozen=True)
class Garbage:
    """One file or folder that nobody needs."""

    path: Path
    reason: str

    @property
    def bytes(self) -> int:
        """Size of all files below; a hard link's other names keep its bytes."""
        if not self.path.is_dir():
            return self.path.lstat().st_size
        return sum(os.lstat(os.path.join(at, name)).st_size for at, _, files in os.walk(self.path) for name in files)


def keys_of(places: Iterable[Path]) -> set[str]:
    """Return all keys that locks and results folders name.

    Raises:
        ArtifactError: a place is neither.
    """
    keys: set[str] = set()
    for place in places:
        if place.is_dir():
            keys |= {str(read_record(folder / RECORD)["key"]) for folder in artifact_folders(place)}
        else:
            keys |= {entry.key for entry in read_lock(place)}
    return keys


def in_results(root: Path, wanted: set[str], keys: set[str], unfinished: bool = False) -> Iterator[Garbage]:
    """Yield what `results/<recipe>` holds for nobody.

    Args:
        root: the folder.
        wanted: names of the recipe's artifacts, `stage/name`.
        keys: keys of locks; an artifact of one of them stays, whatever the recipe says.
        unfinished: also work of jobs that have not finished: a rerun would go on from there.
    """
    finished = set()
    for folder in artifact_folders(root):
        name = folder.relative_to(root).as_posix()
        try:
            key = str(read_record(folder / RECORD)["key"])
        except ArtifactError:
            continue  # damaged: `verify` says so, and the next run builds it again
        finished.add(key)
        if name not in wanted and key not in keys:
            yield Garbage(folder, "neither the recipe nor a lock names it")
    for stage in STAGES:
        for path in sorted((root / stage).rglob(".*") if (root / stage).is_dir() else ()):
            if ".tmp." in path.name:
                yield Garbage(path, "draft of a job that was killed")
            elif path.name.endswith(".differs"):
                yield Garbage(path, "another value of the same key, kept for comparison")
        for path in sorted((root / WORK / stage).glob("*")):
            if path.name in finished:
                yield Garbage(path, "work of a job that has finished")
            elif unfinished:
                yield Garbage(path, "work of a job that has not finished: a rerun would go on from there")


def in_store(store: Store, keys: set[str]) -> Iterator[Garbage]:
    """Yield the store's entries that no key names, its quarantine, and drafts older than a day."""
    for entry in store.entries():
        if entry.name not in keys:
            yield Garbage(entry, "no lock and no results that were given name its key")
    for path in sorted((store.root / QUARANTINE).glob("*")):
        yield Garbage(path, "damaged entry, kept for inspection")
    for path in store.drafts():
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > DRAFT_AGE_S:
                yield Garbage(path, "draft of a job that was killed")


def remove(garbage: Garbage) -> None:
    """Remove it, read-only folders too."""
    if not garbage.path.is_dir() or garbage.path.is_symlink():
        garbage.path.unlink(missing_ok=True)
        return
    for current, _, _ in os.walk(garbage.path):
        os.chmod(current, stat.S_IRWXU)
    shutil.rmtree(garbage.path)
