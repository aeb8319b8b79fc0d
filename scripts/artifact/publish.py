"""Atomic publication: a reader sees the whole artifact or none of it, whenever a writer dies."""

import contextlib
import ctypes
import os
import shutil
import uuid
from pathlib import Path

from scripts.artifact.digest import RECORD, SUMS, ArtifactError
from scripts.artifact.record import read_record


def draft_folder(target: Path) -> Path:
    """Create and return an empty folder beside `target` under a name that no other writer has."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.parent / f".{target.name}.tmp.{uuid.uuid4().hex}"
    draft.mkdir()
    return draft


def differs_folder(target: Path) -> Path:
    """Return where an artifact is kept that got another value from the same key."""
    return target.parent / f".{target.name}.differs"


def sweep_drafts(target: Path) -> None:
    """Remove what killed writers of `target` left behind. A living second writer then fails, harmlessly.

    Where a writer died between its two renames, its finished draft (else the old artifact) gets the target's name.
    """
    if not os.path.lexists(target):
        drafts = sorted(target.parent.glob(f".{target.name}.tmp.*"), key=lambda path: path.suffix == ".old")
        for path in [p for p in drafts if (p / SUMS).is_file() and _old_record(p) is not None][:1]:
            with contextlib.suppress(OSError):
                os.rename(path, target)
    for path in target.parent.glob(f".{target.name}.tmp.*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to the disk, and make files read-only, all but SHA256SUMS.

    Snakemake 9.27.1 runs no job whose output the user may not write (`ProtectedOutputException`; root may write all).
    """
    for current, _, files in os.walk(folder, topdown=False):
        for name in files:
            path = os.path.join(current, name)
            if name != SUMS or current != os.fspath(folder):
                os.chmod(path, 0o444)
            _sync(path)
        _sync(current)


def publish(draft: Path, target: Path) -> None:
    """Make `draft` the artifact at `target`: fsync, then rename; the manifest travels inside.

    An artifact of the same key and value stays. One of the same key and another value is a report of
    non-determinism, never overwritten silently.

    Raises:
        ArtifactError: two values for one key; the draft is kept as `<name>.differs` for comparison.
    """
    new = read_record(draft / RECORD)
    old = _old_record(target)
    sync_tree(draft)
    if old is not None and old["key"] == new["key"] and old["value"] != new["value"]:
        aside = differs_folder(target)
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(draft, aside)
        raise ArtifactError(
            f"{target}: not deterministic: key {new['key'][:16]} gave value {old['value']} before, {new['value']} now; "
            f"compare {target} with {aside}; to accept the new one remove {target} and run snakemake again"
        )
    trash = draft.with_name(f"{draft.name}.old")
    if _exchange(draft, target):
        os.rename(draft, trash)
    else:
        _replace(draft, target, trash)
    _sync(target.parent)
    shutil.rmtree(trash, ignore_errors=True)


def _exchange(draft: Path, target: Path) -> bool:
    """Swap two folders in one step, if the system can (Linux; not on NFS) and there is something to swap."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    at_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    return rename is not None and rename(at_cwd, os.fsencode(draft), at_cwd, os.fsencode(target), exchange) == 0


def _replace(draft: Path, target: Path, trash: Path) -> None:
    """Move `target` aside and `draft` into its place; if the second step fails, the old artifact comes back."""
    try:
        os.rename(target, trash)
    except FileNotFoundError:
        os.rename(draft, target)
        return
    try:
        os.rename(draft, target)
    except OSError:
        os.rename(trash, target)
        raise


def _old_record(target: Path) -> dict[str, object] | None:
    try:
        return read_record(target / RECORD)
    except ArtifactError:
        return None


def _sync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
