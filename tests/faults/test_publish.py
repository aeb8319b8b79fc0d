"""Publication when the second step fails, when a writer dies between two steps, and beside another writer."""

import hashlib
import os
from pathlib import Path

import pytest

from scripts.artifact import publish as publishing
from scripts.artifact.digest import FACTS, RECORD, SUMS, ArtifactError, format_sums, hash_files
from scripts.artifact.publish import draft_folder, publish, sweep_drafts
from scripts.artifact.record import write_record
from scripts.artifact.verify import check_artifact


def finished_draft(target: Path, text: str, key: str) -> Path:
    """Return a draft of `target` that has everything but its name."""
    draft = draft_folder(target)
    (draft / "a.txt").write_text(text)
    sums = format_sums(hash_files(draft, ["a.txt"]))
    (draft / SUMS).write_text(sums)
    write_record(draft / RECORD, {"key": key, "value": hashlib.sha256(sums.encode()).hexdigest()})
    write_record(draft / FACTS, {})
    return draft


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A published artifact with the text `old`."""
    target = tmp_path / "results" / "r" / "clean" / "x"
    publish(finished_draft(target, "old", "k1"), target)
    return target


@pytest.mark.parametrize("swap", [True, False], ids=["one step", "two steps, as on NFS"])
def test_another_key_replaces_the_artifact(target: Path, swap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not swap:
        monkeypatch.setattr(publishing, "_exchange", lambda draft, target: False)
    publish(finished_draft(target, "new", "k2"), target)
    assert (target / "a.txt").read_text() == "new"
    assert check_artifact(target, deep=True) == []
    assert [p.name for p in target.parent.iterdir()] == ["x"]


def test_a_failing_second_rename_leaves_the_old_artifact_whole(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = finished_draft(target, "new", "k2")
    monkeypatch.setattr(publishing, "_exchange", lambda draft, target: False)
    real = os.rename

    def fail(source: Path, goal: Path) -> None:
        if Path(source) == draft:
            raise OSError(5, "Input/output error")
        real(source, goal)

    monkeypatch.setattr("scripts.artifact.publish.os.rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        publish(draft, target)
    assert (target / "a.txt").read_text() == "old"
    assert check_artifact(target, deep=True) == []


@pytest.mark.parametrize("left", ["draft and old", "old"])
def test_what_a_writer_left_between_two_renames_is_found_again(target: Path, left: str) -> None:
    draft = finished_draft(target, "new", "k2")
    os.rename(target, draft.with_name(f"{draft.name}.old"))
    if left == "old":
        (draft / SUMS).unlink()  # the draft is not finished: its writer died before
    sweep_drafts(target)
    assert (target / "a.txt").read_text() == ("new" if left == "draft and old" else "old")
    assert check_artifact(target, deep=True) == []
    assert [p.name for p in target.parent.iterdir()] == ["x"]


def test_a_writer_whose_draft_was_swept_cannot_publish(target: Path) -> None:
    """K1 and K2 of plain Snakemake: an orphan lives on beside its rerun."""
    orphan = finished_draft(target, "orphan", "k2")
    sweep_drafts(target)  # the rerun begins
    publish(finished_draft(target, "rerun", "k3"), target)
    with pytest.raises((OSError, ArtifactError)):
        publish(orphan, target)
    assert (target / "a.txt").read_text() == "rerun"
    assert check_artifact(target, deep=True) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[1, 2]",
        b"null",
        b'{"stats": 7, "digests": {}}',
        b'{"stats": {"a.txt": [1, 2]}, "digests": {"a.txt": 7}}',
        b"[" * 100_000,
        b'{"a.txt": [3, 1, 1, 1, 9000000000, "00"]}',
        b'{"stats": {"a.txt": {"x": 1}}, "digests": {"b.txt": null}}',
    ],
    ids=["empty", "bytes", "list", "null", "number", "short", "deep", "old format", "object"],
)
def test_a_damaged_stat_cache_costs_only_time(target: Path, content: bytes) -> None:
    cache = target.parents[1] / ".work" / "verified" / "clean--x.json"
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    assert check_artifact(target) == []


def test_a_wrong_digest_in_the_stat_cache_accuses_nobody(target: Path) -> None:
    import json

    stat = (target / "a.txt").stat()
    stats = {"a.txt": [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]}
    cache = target.parents[1] / ".work" / "verified" / "clean--x.json"
    cache.parent.mkdir(parents=True)
    cache.write_text(json.dumps({"stats": stats, "digests": {"a.txt": "0" * 64}}))
    assert check_artifact(target) == []
