"""gc: what neither the recipe nor a lock names, and nothing else; removed only when told so."""

import os
from pathlib import Path

import pytest

from scripts.artifact.gc import DRAFT_AGE_S, in_results, in_store, keys_of, remove
from scripts.artifact.lock import entries_of, format_lock
from scripts.artifact.record import key_of, read_record, write_record
from scripts.artifact.store import KEY_FIELDS, Store
from tests.unit.test_explain import made


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Four artifacts, and what kills and changes leave behind."""
    root = tmp_path / "results" / "r"
    for number, name in enumerate(("download/one", "clean/one", "clean/gone", "benchmark/m/s")):
        made(root, name, {"a.txt": name}, lock=str(number) * 64)
    for name in ("clean/.one.tmp.12ab", "benchmark/m/.s.differs", ".work/train/unknown"):
        (root / name).mkdir(parents=True)
        (root / name / "half.bin").write_bytes(b"x" * 100)
    (root / "clean/.one.tmp.sums").write_text("half")
    key = read_record(root / "clean/one/artifact.json")["key"]
    (root / ".work/clean" / key).mkdir(parents=True)
    return root


WANTED = {"download/one", "clean/one", "benchmark/m/s"}


def names(root: Path, **options: bool) -> list[str]:
    """Return the found paths below the root."""
    return [g.path.relative_to(root).as_posix() for g in in_results(root, WANTED, set(), **options)]


def test_it_lists_leftovers_and_what_nobody_names(results: Path) -> None:
    key = read_record(results / "clean/one/artifact.json")["key"]
    listed = ["clean/gone", "clean/.one.tmp.12ab", "clean/.one.tmp.sums", f".work/clean/{key}"]
    assert names(results) == [*listed, "benchmark/m/.s.differs"]
    assert ".work/train/unknown" in names(results, unfinished=True), "checkpoints of a training are work of days"


def test_what_a_lock_names_stays(results: Path, tmp_path: Path) -> None:
    (tmp_path / "old.lock").write_text(format_lock(entries_of(results)))
    keys = keys_of([tmp_path / "old.lock"])
    assert "clean/gone" not in [g.path.relative_to(results).as_posix() for g in in_results(results, WANTED, keys)]
    assert keys_of([results]) == keys


def test_removing_takes_exactly_what_was_listed(results: Path) -> None:
    before = {p for p in results.rglob("*") if p.is_file()}
    listed = list(in_results(results, WANTED, set()))
    assert sum(garbage.bytes for garbage in listed) >= 204
    (results / "clean/gone").chmod(0o555)
    for garbage in listed:
        remove(garbage)
    assert names(results) == []
    gone = {p.relative_to(results).as_posix() for p in before if not p.exists()}
    assert {p.split("/")[0] for p in gone} == {"clean", "benchmark"}
    assert (results / "clean/one/a.txt").exists() and (results / "benchmark/m/s/a.txt").exists()
    assert (results / ".work/train/unknown/half.bin").exists()


def test_a_store_keeps_what_locks_name_and_young_drafts(results: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.root.mkdir()
    for name in ("clean/one", "clean/gone"):
        for path in (results / name).iterdir():
            path.chmod(0o444)
        record = read_record(results / name / "artifact.json")
        (results / name / "artifact.json").chmod(0o644)
        fields = {**{f: record.get(f) for f in KEY_FIELDS}, "format": 1}
        write_record(results / name / "artifact.json", {**record, **fields, "key": key_of(fields)})
        assert store.add(results / name) == "added"
    key = read_record(results / "clean/one/artifact.json")["key"]
    young, old = (store.entry(key).with_name(f".{key}.tmp.{age}") for age in ("young", "old"))
    for path in (young, old):
        path.mkdir()
    os.utime(old, (0, path.stat().st_mtime - 2 * DRAFT_AGE_S))
    (store.root / "quarantine" / "x").mkdir(parents=True)
    found = list(in_store(store, {key}))
    assert [g.path.name for g in found] == [
        read_record(results / "clean/gone/artifact.json")["key"],
        "x",
        f".{key}.tmp.old",
    ]
    for garbage in found:
        remove(garbage)
    assert [entry.name for entry in store.entries()] == [key]
    assert store.examine(store.entry(key), deep=True)[0] == ""
