"""Verify artifacts against their SHA256SUMS, on use and as a command.

A file whose stat has not changed since it was hashed is not read again; what has to be read is read largest file first
by all threads together, whichever artifact it belongs to.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from scripts.artifact.digest import FACTS, OWN_FILES, RECORD, SUMS, ArtifactError, read_sums, sha256_file, value_of
from scripts.artifact.places import WORK, artifact_folders, results_root
from scripts.artifact.record import read_record
from scripts.artifact.statcache import StatCache, stat_list, stat_of
from scripts.artifact.tensors import digest_safetensors
from scripts.recipe.checkpoints import in_checkpoint

_BATCH_FILES, _BATCH_BYTES = 256, 1 << 24  # small files travel together: a task costs a thread about 30 us


@dataclass(frozen=True)
class Fault:
    """One bad file of an artifact."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


@dataclass
class Check:
    """One artifact on its way through verification."""

    folder: Path
    faults: list[Fault] = field(default_factory=list)
    claimed: dict[str, str] = field(default_factory=dict)
    unread: dict[str, list[int]] = field(default_factory=dict)
    """Files that must be read: name to size, mtime, ctime and inode."""
    unchanged: int = 0
    """Files that were not read, since their stat is the one they had when they were hashed."""
    cache: StatCache | None = None
    tensors: dict[str, str] | None = None
    """Digests of the tensors that were read, where they were asked for."""

    @property
    def bytes(self) -> int:
        """Size of what must be read."""
        return sum(stat[0] for stat in self.unread.values())


def stat_cache(folder: Path) -> StatCache | None:
    """Return the cache of remembered digests of an artifact; None for a folder outside of any results."""
    try:
        root = results_root(folder)
    except ArtifactError:
        return None
    name = folder.relative_to(root).as_posix().replace("/", "--")
    return StatCache(root / WORK / "verified" / f"{name}.json")


def begin(folder: Path, deep: bool = False, tensors: bool = False) -> Check:
    """Compare names with SHA256SUMS, and sort out which files must be read.

    Args:
        folder: the artifact.
        deep: read every byte, even of files whose stat has not changed since they were hashed.
        tensors: as `deep`, and hold every tensor to the digest that `artifact.json` gives.
    """
    check = Check(folder, tensors={} if tensors else None)
    try:
        check.claimed = read_sums(folder)
        present = _listing(folder)
    except ArtifactError as error:
        check.faults.append(Fault(folder / SUMS, str(error).removeprefix(f"{folder / SUMS}: ")))
        return check
    claimed = check.claimed
    lost, more = sorted(claimed.keys() - present.keys()), sorted(present.keys() - claimed.keys())
    check.faults += [Fault(folder / name, f"missing; {SUMS} says {claimed[name]}") for name in lost]
    check.faults += [Fault(folder / name, f"not listed in {SUMS}; remove it or rebuild") for name in more]
    check.cache = cache = stat_cache(folder)
    if cache is not None and not (deep or tensors) and cache.all_known(present, claimed):
        check.unchanged = len(present)
        return check
    if cache is not None:
        cache.keep_only(present)
    for name, stat in present.items():
        # Unknown, or a damaged cache: only the bytes themselves can accuse a file.
        known = None if deep or tensors or cache is None else cache.known(name, stat)
        if name in claimed and known != claimed[name]:
            check.unread[name] = stat
    check.unchanged = len(present) - len(more) - len(check.unread)
    return check


def read_all(checks: Sequence[Check], threads: int = 1) -> Iterator[Check]:
    """Read what must be read, and yield each check when its faults are complete, in their order."""
    order = sorted(((stat[0], i, n) for i, c in enumerate(checks) for n, stat in c.unread.items()), reverse=True)
    waiting: list[list[Future[list[tuple[int, Fault]]]]] = [[] for _ in checks]
    with ThreadPoolExecutor(max(1, threads)) as pool:
        batch: list[tuple[int, str]] = []
        size = 0
        for position, (length, index, name) in enumerate(order):
            batch.append((index, name))
            size += length
            if size >= _BATCH_BYTES or len(batch) >= _BATCH_FILES or position == len(order) - 1:
                done = pool.submit(_read, checks, batch)
                for i in {i for i, _ in batch}:
                    waiting[i].append(done)
                batch, size = [], 0
        for index, (check, futures) in enumerate(zip(checks, waiting, strict=True)):
            found = [fault for future in futures for i, fault in future.result() if i == index]
            check.faults += sorted(found, key=lambda fault: fault.path)
            if check.tensors and not check.faults:
                check.faults += _tensor_faults(check.folder, check.tensors)
            if check.cache is not None:
                check.cache.save()
            yield check


def _read(checks: Sequence[Check], files: list[tuple[int, str]]) -> list[tuple[int, Fault]]:
    return [(index, fault) for index, name in files if (fault := _read_one(checks[index], name)) is not None]


def _read_one(check: Check, name: str) -> Fault | None:
    path = check.folder / name
    try:
        if check.tensors is not None and path.suffix == ".safetensors" and not in_checkpoint(name):
            found, tensors = digest_safetensors(path)
            check.tensors.update(tensors)
        else:
            found = sha256_file(path)
        if check.cache is not None and stat_of(path) == check.unread[name]:
            check.cache.remember(name, found, check.unread[name])
    except OSError as error:
        return Fault(path, f"cannot be read: {error}")
    except ArtifactError as error:
        return Fault(path, str(error).removeprefix(f"{path}: "))
    if found == check.claimed[name]:
        return None
    return Fault(path, f"has SHA-256 {found}, {SUMS} says {check.claimed[name]}{_tensors(check.folder, name)}")


def _tensors(folder: Path, name: str) -> str:
    """Return which tensors of a damaged weight file differ, in words; of a checkpoint's, no digests are recorded."""
    path = folder / name
    if path.suffix != ".safetensors" or in_checkpoint(name):
        return ""
    try:
        claimed = read_record(folder / RECORD).get("tensors") or {}
        names = sorted(n for n, digest in digest_safetensors(path)[1].items() if claimed.get(n) != digest)
    except (ArtifactError, OSError) as error:
        return f"; {error}"
    return f"; {len(names)} tensors differ, first {names[0]}" if names else "; no tensor differs, so its header does"


def _tensor_faults(folder: Path, found: dict[str, str]) -> list[Fault]:
    """Return where the digests in `artifact.json` are not those of the bytes, although the files are sound."""
    try:
        claimed = dict(read_record(folder / RECORD).get("tensors") or {})
    except ArtifactError:
        return []  # `check_records` says so
    names = sorted(name for name in {*claimed, *found} if claimed.get(name) != found.get(name))
    texts = (f"tensor {n}: has digest {found.get(n, '(none)')}, says {claimed.get(n, '(none)')}" for n in names)
    return [Fault(folder / RECORD, text) for text in texts]


def check_files(folder: Path, deep: bool = False, threads: int = 1) -> list[Fault]:
    """Return one fault for each payload file that is missing, changed or not listed; see `begin`."""
    (check,) = read_all([begin(folder, deep)], threads)
    return check.faults


def check_records(folder: Path) -> list[Fault]:
    """Return what is wrong with the artifact's own records: unreadable, changed, or of another SHA256SUMS."""
    faults = []
    for name in (RECORD, FACTS):
        path = folder / name
        try:
            record = read_record(path)
        except ArtifactError as error:
            faults.append(Fault(path, str(error).removeprefix(f"{path}: ")))
            continue
        if name == RECORD and (folder / SUMS).is_file() and record["value"] != value_of(folder):
            text = f"has SHA-256 {value_of(folder)}, {RECORD} says {record['value']}"
            faults.append(Fault(folder / SUMS, text))
    return faults


def check_artifact(folder: Path, deep: bool = False, threads: int = 1) -> list[Fault]:
    """As `check_files`, and that the artifact's own records are whole and agree with SHA256SUMS."""
    return check_files(folder, deep, threads) + check_records(folder)


def check_tree(root: Path, deep: bool = True, threads: int = 1) -> Iterator[tuple[Path, list[Fault]]]:
    """Yield each artifact below `root` with its faults."""
    for check in read_all([begin(folder, deep) for folder in artifact_folders(root)], threads):
        yield check.folder, check.faults + check_records(check.folder)


def require_sound(folders: Sequence[Path], threads: int = 1) -> list[str]:
    """Return the VALUE of each artifact after checking every byte of it (or its unchanged stat).

    All of them at once: one after the other, threads would wait for the largest file of each.

    Raises:
        ArtifactError: a file differs; the message holds both digests and the command that mends it.
    """
    return [_value(check) for check in read_all([begin(folder) for folder in folders], threads)]


def _value(check: Check) -> str:
    folder, faults = check.folder, check.faults
    if not faults and (folder / RECORD).is_file():
        record = read_record(folder / RECORD)
        if record["value"] != value_of(folder):
            faults = [Fault(folder / SUMS, f"has SHA-256 {value_of(folder)}, {RECORD} says {record['value']}")]
    if faults:
        shown = "\n".join(map(str, faults[:10]))
        raise ArtifactError(
            f"refusing to use a damaged artifact:\n{shown}\nto rebuild it: rm {folder / SUMS} and run snakemake again"
        )
    return value_of(folder)


def _listing(root: Path) -> dict[str, list[int]]:
    """Return {relative path: size, mtime, ctime, inode} of the payload, one stat a file.

    Raises:
        ArtifactError: as `payload_files`, or a folder can't be read.
    """
    found: dict[str, list[int]] = {}
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(os.path.join(root, below)) as listing:
                for entry in listing:
                    name = below + entry.name
                    if entry.is_file(follow_symlinks=False):
                        if name not in OWN_FILES:
                            found[name] = stat_list(entry.stat(follow_symlinks=False))
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(name + "/")
                    elif name not in OWN_FILES:
                        text = "not a regular file; an artifact holds only regular files"
                        raise ArtifactError(f"{entry.path}: {text}")
        except OSError as error:
            raise ArtifactError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return found
