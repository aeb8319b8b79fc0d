"""Shared store of finished artifacts by key: `ATELIER_STORE=DIR`, across recipes, clones and users.

An entry is the artifact's folder, `DIR/objects-1/<two digits>/<key>/`: payload, SHA256SUMS and records. Entries are
read-only, appear by one rename, and every byte is hashed when it goes in and when it comes out. The key holds names and
order of the inputs, so swapped inputs are another entry.
"""

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.artifact.differ import inside
from scripts.artifact.digest import (
    FACTS,
    RECORD,
    SUMS,
    ArtifactError,
    format_sums,
    hash_files,
    payload_files,
    read_sums,
    sha256_bytes,
)
from scripts.artifact.place import place
from scripts.artifact.publish import sync_tree
from scripts.artifact.record import key_of, read_record

STORE = "ATELIER_STORE"
LAYOUT = "objects-1"
QUARANTINE = "quarantine"
_READ_ONLY = 0o555
KEY_FIELDS = ("format", "stage", "spec", "code", "lock", "inputs")


class ConflictError(ArtifactError):
    """Two values for one key: the work is not deterministic, or one of the two places lies."""


class PoisonedError(ArtifactError):
    """An entry of the store is not what it claims to be."""


@dataclass(frozen=True)
class Store:
    """One store; its folder must exist or be creatable."""

    root: Path

    def entry(self, key: str) -> Path:
        """Return the folder of a key's entry."""
        return self.root / LAYOUT / key[:2] / key

    def entries(self) -> Iterator[Path]:
        """Yield the folders of all entries."""
        yield from sorted(p for p in (self.root / LAYOUT).glob("??/*") if not p.name.startswith("."))

    def drafts(self) -> Iterator[Path]:
        """Yield what writers are working on, or left when they were killed."""
        yield from sorted((self.root / LAYOUT).glob("??/.*.tmp.*"))

    def examine(self, entry: Path, deep: bool, threads: int = 1) -> tuple[str, dict[str, Any]]:
        """Return (fault, record): an empty fault and its record, or what is wrong and where the entry is now.

        Args:
            entry: folder of an entry.
            deep: read every byte, not the records alone.
            threads: files hashed side by side.
        """
        try:
            record = read_record(entry / RECORD)
            fields = {name: record.get(name) for name in KEY_FIELDS}
            if key_of(fields) != entry.name:
                raise ArtifactError(f"{entry / RECORD}: is of key {key_of(fields)}")
            _sound_record(entry, fields)
            if deep:
                _require(entry, hash_files(entry, payload_files(entry), threads), record)
        except (ArtifactError, OSError) as error:
            return f"{error}; {self._quarantine(entry)}", {}
        return "", record

    def fetch(self, fields: Mapping[str, Any], draft: Path, threads: int = 1) -> dict[str, Any] | None:
        """Bring the artifact that was made from `fields` into the empty folder `draft`, but for its two records.

        Args:
            fields: what the key is made of; the entry's record must say the same.
            draft: gets the payload; every byte of it is hashed after it arrived.
            threads: files hashed side by side.

        Returns:
            The entry's record, or None if there is no entry.

        Raises:
            PoisonedError: the entry differs from what it claims. It was moved to `quarantine/`, `draft` is empty again.
        """
        entry = self.entry(key_of(dict(fields)))
        if not entry.is_dir():
            return None
        try:
            record = _sound_record(entry, fields)
            for name in payload_files(entry):
                place(entry / name, draft / name)
            found = hash_files(draft, payload_files(draft), threads)
            _require(entry, found, record)
            (draft / SUMS).write_text(format_sums(found), encoding="utf-8")
        except (ArtifactError, FileNotFoundError) as error:
            _empty(draft)
            if not entry.is_dir():  # another reader has just moved it away
                return None
            raise PoisonedError(f"{error}; {self._quarantine(entry)}") from None
        except OSError:
            _empty(draft)
            raise
        return record

    def facts(self, key: str) -> dict[str, Any]:
        """Return what the entry's maker wrote down of his run; empty if that can't be read."""
        try:
            return read_record(self.entry(key) / FACTS)
        except ArtifactError:
            return {}

    def check(self, folder: Path, threads: int = 1) -> bool:
        """Return whether the store holds this finished artifact; a damaged entry is moved to `quarantine/`.

        Raises:
            ConflictError: the entry of its key has another value; the message names the first differing file.
        """
        record = read_record(folder / RECORD)
        entry = self.entry(str(record["key"]))
        if not entry.is_dir():
            return False
        try:
            there = _sound_record(entry, {name: record[name] for name in KEY_FIELDS})
            if there["value"] == record["value"]:
                return True  # its bytes are hashed when they are used
            _require(entry, hash_files(entry, payload_files(entry), threads), there)
        except (ArtifactError, OSError) as error:
            if entry.is_dir():
                print(f"{STORE}: {error}; {self._quarantine(entry)}")
            return False
        parts = [part for part in inside(entry, folder) if not part.startswith(KEY_FIELDS)]
        host = self.facts(str(record["key"])).get("host", "an unknown host")
        raise ConflictError(
            f"not deterministic: key {str(record['key'])[:16]} of {record['name']} gave value {there['value']} in the "
            f"store ({entry}, made on {host}), {record['value']} here; first difference: {parts[0] if parts else SUMS}"
        )

    def add(self, folder: Path, threads: int = 1) -> str:
        """Put a finished artifact into the store; return `added`, or `there` if its value was there first.

        Raises:
            ConflictError: see `check`.
            ArtifactError: `folder` itself is damaged.
            OSError: the store can't be written.
        """
        if self.check(folder, threads):
            return "there"
        record = read_record(folder / RECORD)
        entry = self.entry(str(record["key"]))
        self._shared_folder(entry.parent)
        draft = entry.with_name(f".{entry.name}.tmp.{uuid.uuid4().hex}")
        try:
            draft.mkdir()
            for name in [*payload_files(folder), RECORD, FACTS]:
                place(folder / name, draft / name)
            # A copy, never a link: in results this file must stay writable (see `sync_tree`).
            shutil.copyfile(folder / SUMS, draft / SUMS)
            _require(draft, hash_files(draft, payload_files(draft), threads), read_record(draft / RECORD))
            sync_tree(draft)
            os.chmod(draft / SUMS, 0o444)
            for current, _, _ in os.walk(draft, topdown=False):
                os.chmod(current, _READ_ONLY)
            if not _renamed(draft, entry):
                if self.check(folder, threads):
                    return "there"
                os.rename(draft, entry)
            return "added"
        finally:
            _remove(draft)

    def _quarantine(self, entry: Path) -> str:
        """Move a damaged entry out of the way, kept for inspection; return what was done, in words."""
        target = self.root / QUARANTINE / f"{entry.name}.{uuid.uuid4().hex[:8]}"
        try:
            self._shared_folder(target.parent)
            with contextlib.suppress(OSError):
                os.chmod(entry, stat.S_IRWXU)  # a folder that gets another parent must be writable
            os.rename(entry, target)
        except OSError as error:
            return f"it could not be moved away ({error.strerror}); remove {entry}"
        return f"moved to {target}"

    def _shared_folder(self, folder: Path) -> None:
        """Create a folder with the permissions of the store's own, so that whoever may write there may write here."""
        for path in (*reversed(folder.relative_to(self.root).parents), folder.relative_to(self.root)):
            with contextlib.suppress(FileExistsError):
                (self.root / path).mkdir()
                os.chmod(self.root / path, stat.S_IMODE(self.root.stat().st_mode))


def open_store(setting: str | None) -> Store | None:
    """Return the store that a setting names, created where its parent folder exists; None for an empty one.

    Raises:
        ArtifactError: it is no folder and can't be made one.
    """
    if not setting:
        return None
    root = Path(setting).expanduser().absolute()
    try:
        root.mkdir(exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{STORE}={setting}: {error.strerror}; name an existing folder, or unset it") from None
    return Store(root)


def _sound_record(entry: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry's record, if it is of these fields and of the key that its folder is named by.

    Raises:
        ArtifactError: it isn't.
    """
    record = read_record(entry / RECORD)
    other = [name for name in KEY_FIELDS if record.get(name) != fields[name]]
    if other or record.get("key") != entry.name:
        raise ArtifactError(f"{entry / RECORD}: is of another {', '.join(other) or 'key'} than its place says")
    return record


def _require(folder: Path, found: Mapping[str, str], record: Mapping[str, Any]) -> None:
    """Raise ArtifactError unless the digests of the payload are those of SHA256SUMS and of the record's value."""
    claimed = read_sums(folder)
    for name in sorted({*claimed, *found}):
        if claimed.get(name) != found.get(name):
            said = f"has SHA-256 {found.get(name, '(missing)')}, {SUMS} says {claimed.get(name, '(not listed)')}"
            raise ArtifactError(f"{folder / name}: {said}")
    value = sha256_bytes(format_sums(found).encode())
    if value != record["value"]:
        raise ArtifactError(f"{folder / SUMS}: has SHA-256 {value}, {RECORD} says {record['value']}")


def _renamed(draft: Path, entry: Path) -> bool:
    """Give the draft its name. A folder can't be renamed over a filled one, so of two writers one is first."""
    try:
        os.rename(draft, entry)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        return False
    return True


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _remove(draft: Path) -> None:
    """Remove what is left of a draft, read-only folders too."""
    if draft.is_dir():
        for current, _, _ in os.walk(draft):
            with contextlib.suppress(OSError):
                os.chmod(current, stat.S_IRWXU)
        shutil.rmtree(draft, ignore_errors=True)
