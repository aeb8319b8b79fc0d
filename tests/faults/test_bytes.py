"""Flipped and lost bytes at random places of every file of every artifact: found by verify, and refused on use."""

import os
from collections import Counter
from pathlib import Path

import pytest

from scripts.artifact.digest import FACTS, OWN_FILES, ArtifactError
from scripts.artifact.record import read_record
from scripts.artifact.verify import check_artifact, require_sound
from scripts.recipe.base import keyed_hash
from tests.faults.programs import artifacts
from tests.pipeline.bench import Bench

TRIES = 1000
"""At least; every file gets the same number of tries, half of them flips, half truncations."""


def damage(content: bytes, kind: str, number: int, name: str) -> bytes:
    """Return `content` with one bit flipped, or cut somewhere."""
    at = keyed_hash(20230902, "damage", kind, number, name) % len(content)
    if kind == "cut":
        return content[:at]
    bit = 1 << keyed_hash(20230902, "bit", number, name) % 8
    return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


def overwrite(path: Path, content: bytes) -> None:
    """Write in place and give the old times back, as bit rot does."""
    stat = path.stat()
    with path.open("r+b") as handle:
        handle.write(content)
        handle.truncate(len(content))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def refused_on_use(folder: Path, path: Path) -> bool:
    """Whether what reads this file refuses: the stages below, or, for facts that no stage reads, their reader."""
    try:
        read_record(path) if path.name == FACTS else require_sound([folder])
    except ArtifactError as error:
        return str(path) in str(error) or str(folder) in str(error)
    return False


def test_a_thousand_damages_are_all_found(bench: Bench) -> None:
    files = [(f, p) for f in artifacts(bench) for p in sorted(f.rglob("*")) if p.is_file() and p.stat().st_size]
    each = -(-TRIES // len(files))
    tried: Counter[str] = Counter()
    for folder, path in files:
        content, name = path.read_bytes(), path.relative_to(bench.folder).as_posix()
        path.chmod(0o644)
        for number in range(each):
            kind = "cut" if number % 2 else "flip"
            overwrite(path, damage(content, kind, number, name))
            faults = check_artifact(folder, deep=True)
            # A damaged SHA256SUMS may accuse the files that it lists; any other file is named itself.
            named = [f for f in faults if f.path == path]
            assert faults and (named or path.name in OWN_FILES), f"{name}: {kind} {number} not found: {faults}"
            assert refused_on_use(folder, path), f"{name}: {kind} {number} would be used"
            tried[kind] += 1
        overwrite(path, content)
        assert check_artifact(folder, deep=True) == []
    assert tried["cut"] + tried["flip"] >= TRIES
    print(f"{len(files)} files, {dict(tried)}")


@pytest.mark.parametrize("name", ["sums", "record"])
def test_an_own_file_swapped_for_another_artifacts_is_found(bench: Bench, name: str) -> None:
    """Whole and well-formed, but of another artifact: digests must tie the three files together."""
    first, second = (bench.folder / "results/tiny/clean" / source for source in ("demo-pippa", "demo-airoboros"))
    path = first / {"sums": "SHA256SUMS", "record": "artifact.json"}[name]
    path.chmod(0o644)
    path.write_bytes((second / path.name).read_bytes())
    assert check_artifact(first, deep=True)
    with pytest.raises(ArtifactError, match="refusing to use a damaged artifact"):
        require_sound([first])
