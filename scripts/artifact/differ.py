"""Where two builds part: the first artifact, in order of the flow, that differs, down to the file, tensor or row."""

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from scripts.artifact.digest import RECORD, ArtifactError, read_sums
from scripts.artifact.lock import Entry, entries_of, read_lock
from scripts.artifact.record import read_record
from scripts.recipe.base import STAGES

_LINES = frozenset({".jsonl", ".json", ".txt", ".md", ".yaml", ".csv", ".jinja", ".html", ".svg"})


@dataclass(frozen=True)
class Difference:
    """One artifact that differs."""

    artifact: str
    how: str
    """`only in A`, `only in B`, `same key, other value: not deterministic`, or `other key and value`."""
    details: tuple[str, ...] = ()


def entries(path: Path) -> list[Entry]:
    """Return the artifacts of a results folder or of a lock file.

    Raises:
        ArtifactError: neither of the two.
    """
    if path.is_dir():
        found = entries_of(path)
        if not found:
            raise ArtifactError(f"{path}: holds no artifact; name results/<recipe> or a lock file")
        return found
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file or folder; name results/<recipe> or a lock file")
    return read_lock(path)


def differences(a: Path, b: Path) -> list[Difference]:
    """Return the artifacts that differ in order of the flow; the first is where the two part.

    Files, tensors and rows are compared where both sides are folders, for the first differing artifact.
    """
    left, right = ({(e.stage, e.name): e for e in entries(path)} for path in (a, b))
    found: list[Difference] = []
    for artifact in sorted({*left, *right}, key=lambda key: (STAGES.index(key[0]), key[1])):
        one, two = left.get(artifact), right.get(artifact)
        name = "/".join(filter(None, artifact))
        if one is None or two is None:
            found.append(Difference(name, "only in A" if two is None else "only in B"))
        elif one.value != two.value:
            how = "same key, other value: not deterministic" if one.key == two.key else "other key and value"
            details = tuple(inside(a / name, b / name)) if not found and a.is_dir() and b.is_dir() else ()
            found.append(Difference(name, how, details))
    return found


def inside(a: Path, b: Path) -> list[str]:
    """Return what differs between two artifacts: key fields, files, tensors, and the first differing row of each."""
    old, new = read_record(a / RECORD), read_record(b / RECORD)
    said = [f"{field} differs" for field in ("spec", "code", "lock", "inputs") if old[field] != new[field]]
    sums_a, sums_b = read_sums(a), read_sums(b)
    other = [name for name in sorted({*sums_a, *sums_b}) if sums_a.get(name) != sums_b.get(name)]
    said += [f"{name}: {_file(a / name, b / name)}" for name in other]
    tensors = [dict(r.get("tensors") or {}) for r in (old, new)]
    names = [n for n in sorted({*tensors[0], *tensors[1]}) if tensors[0].get(n) != tensors[1].get(n)]
    if names:
        said.append(f"{len(names)} of {len({*tensors[0], *tensors[1]})} tensors differ, first {names[0]}")
    return said


def _file(a: Path, b: Path) -> str:
    if not a.is_file() or not b.is_file():
        return "only in A" if a.is_file() else "only in B"
    if a.suffix == ".parquet":
        return _row(_rows(a), _rows(b))
    if a.suffix in _LINES:
        return _row(a.read_text(encoding="utf-8").splitlines(), b.read_text(encoding="utf-8").splitlines())
    return f"{a.stat().st_size:,} and {b.stat().st_size:,} bytes"


def _rows(path: Path) -> list[Any]:
    import pyarrow.parquet as pq

    return list(pq.read_table(path).to_pylist())


def _row(a: list[Any], b: list[Any]) -> str:
    missing = object()
    for number, (one, two) in enumerate(zip_longest(a, b, fillvalue=missing), start=1):
        if one != two:
            return f"row {number} differs ({len(a):,} and {len(b):,} rows)"
    return "the same rows in other bytes"
