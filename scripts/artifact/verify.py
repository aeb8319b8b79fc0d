"""Verify artifacts against their SHA256SUMS, on use and as a command."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scripts.artifact.digest import FACTS, RECORD, SUMS, ArtifactError, payload_files, read_sums, sha256_file, value_of
from scripts.artifact.record import read_record
from scripts.artifact.statcache import StatCache, stat_of
from scripts.recipe.base import STAGES

WORK = ".work"


@dataclass(frozen=True)
class Fault:
    """One bad file of an artifact."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def results_root(folder: Path) -> Path:
    """Return `results/<recipe>` of an artifact folder: the parent of the folder named like its stage."""
    for parent in (folder, *folder.parents):
        if parent.name in STAGES:
            return parent.parent
    raise ArtifactError(f"{folder}: no stage's folder is in this path")


def stat_cache(folder: Path) -> StatCache:
    """Return the cache of remembered digests of an artifact."""
    root = results_root(folder)
    name = folder.relative_to(root).as_posix().replace("/", "--")
    return StatCache(root / WORK / "verified" / f"{name}.json")


def artifact_folders(root: Path) -> list[Path]:
    """Return the folders under `root` that are, or claim to be, artifacts."""
    marks = [p for name in (SUMS, RECORD) for p in root.rglob(name)]
    return sorted({p.parent for p in marks if WORK not in p.parts and ".tmp." not in str(p)})


def check_files(folder: Path, deep: bool = False, threads: int = 1) -> list[Fault]:
    """Compare every payload file with SHA256SUMS.

    Args:
        folder: the artifact.
        deep: read every byte, even of files whose stat has not changed since they were hashed.
        threads: files hashed side by side.

    Returns:
        One fault a file that is missing, changed or not listed.
    """
    try:
        claimed = read_sums(folder)
        present = payload_files(folder)
    except ArtifactError as error:
        return [Fault(folder / SUMS, str(error).removeprefix(f"{folder / SUMS}: "))]
    faults = [Fault(folder / name, f"missing; {SUMS} says {claimed[name]}") for name in sorted({*claimed} - {*present})]
    faults += [
        Fault(folder / n, f"not listed in {SUMS}; remove it or rebuild") for n in sorted({*present} - {*claimed})
    ]
    cache = stat_cache(folder)

    def check(name: str) -> Fault | None:
        path = folder / name
        try:
            found = None if deep else cache.known(path, name)
            if found != claimed[name]:  # unknown, or a damaged cache: only the bytes themselves can accuse a file
                before = stat_of(path)
                found = sha256_file(path)
                cache.remember(path, name, found, before)
        except OSError as error:
            return Fault(path, f"cannot be read: {error}")
        if found != claimed[name]:
            return Fault(path, f"has SHA-256 {found}, {SUMS} says {claimed[name]}")
        return None

    names = [name for name in present if name in claimed]
    with ThreadPoolExecutor(max(1, threads)) as pool:
        faults += [fault for fault in pool.map(check, names) if fault is not None]
    cache.save()
    return faults


def check_artifact(folder: Path, deep: bool = False, threads: int = 1) -> list[Fault]:
    """As `check_files`, and that the artifact's own records are whole and agree with SHA256SUMS."""
    faults = check_files(folder, deep, threads)
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


def check_tree(root: Path, deep: bool = True, threads: int = 1) -> Iterator[tuple[Path, list[Fault]]]:
    """Yield each artifact below `root` with its faults."""
    for folder in artifact_folders(root):
        yield folder, check_artifact(folder, deep, threads)


def require_sound(folder: Path, threads: int = 1) -> str:
    """Return the VALUE of an artifact after checking every byte of it (or its unchanged stat).

    Raises:
        ArtifactError: a file differs; the message holds both digests and the command that mends it.
    """
    faults = check_files(folder, threads=threads)
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
