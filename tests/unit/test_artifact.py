"""Digests, records, publication, verification: what makes an artifact an artifact."""

import json
import multiprocessing
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.artifact.digest import (
    RECORD,
    SUMS,
    ArtifactError,
    format_sums,
    hash_files,
    parse_sums,
    payload_files,
    sha256_file,
    value_of,
)
from scripts.artifact.lock import entries_of, format_lock, parse_lock
from scripts.artifact.publish import draft_folder, publish, sweep_drafts
from scripts.artifact.record import key_of, read_record, write_record
from scripts.artifact.stage import Job, StageError, run_stage
from scripts.artifact.statcache import StatCache
from scripts.artifact.verify import check_artifact, check_files, require_sound
from scripts.recipe.base import Spec, canonical_json, keyed_hash


class DummySpec(Spec):
    """A spec for tests."""

    text: str = "hello"
    size: int = 3


def build(job: Job[DummySpec]) -> None:
    """Write two small files."""
    (job.out / "a.txt").write_text(job.spec.text)
    (job.out / "sub").mkdir()
    (job.out / "sub" / "b.bin").write_bytes(bytes(range(job.spec.size)))
    job.counts["files"] = 2


def make(root: Path, name: str = "one", monkeypatch: pytest.MonkeyPatch | None = None, **spec: object) -> Path:
    """Run a stage in this process and return the artifact's folder."""
    target = root / "results" / "r" / "clean" / name
    argv = ["prog", "--spec", DummySpec(**spec).model_dump_json(), "--output", str(target / SUMS)]
    assert monkeypatch is not None
    monkeypatch.setattr(sys, "argv", argv)
    run_stage("clean", DummySpec, build)
    return target


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished artifact."""
    return make(tmp_path, monkeypatch=monkeypatch)


def test_sums_are_what_sha256sum_reads(artifact: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=artifact, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["a.txt: OK", "sub/b.bin: OK"]


def test_a_finished_artifact_is_sound_and_read_only(artifact: Path) -> None:
    assert check_artifact(artifact, deep=True) == []
    assert require_sound([artifact]) == [read_record(artifact / RECORD)["value"]]
    assert oct((artifact / "a.txt").stat().st_mode)[-3:] == "444"
    assert [p.name for p in artifact.parent.iterdir()] == ["one"], "no draft is left behind"


@pytest.mark.parametrize("name", ["a.txt", "sub/b.bin", SUMS, RECORD, "provenance.json"])
def test_one_flipped_bit_anywhere_is_named(artifact: Path, name: str) -> None:
    path = artifact / name
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as bit rot does: same length, same time
    faults = check_artifact(artifact, deep=True)
    assert faults
    assert any(name in str(fault) for fault in faults)
    assert check_artifact(artifact, deep=False), "ctime or inode changed, so the fast check sees it too"


def test_consumers_refuse_damaged_bytes_with_both_digests(artifact: Path) -> None:
    before = sha256_file(artifact / "a.txt")
    (artifact / "a.txt").chmod(0o644)
    (artifact / "a.txt").write_text("hellO")
    with pytest.raises(ArtifactError) as caught:
        require_sound([artifact])
    assert before in str(caught.value)
    assert sha256_file(artifact / "a.txt") in str(caught.value)
    assert f"rm {artifact / SUMS}" in str(caught.value)


def test_missing_extra_and_linked_files_are_faults(artifact: Path) -> None:
    (artifact / "extra.txt").write_text("x")
    (artifact / "a.txt").unlink()
    texts = "\n".join(map(str, check_files(artifact, deep=True)))
    assert "a.txt: missing" in texts
    assert "extra.txt: not listed" in texts
    (artifact / "link").symlink_to("/etc/hostname")
    assert "not a regular file" in str(check_files(artifact, deep=True)[0])


def test_same_key_keeps_the_bytes_and_a_lost_manifest_is_restored(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    value, inode = value_of(artifact), (artifact / "a.txt").stat().st_ino
    (artifact / SUMS).unlink()
    trash = artifact.parent / f".{artifact.name}.tmp.0123.old"  # its writer died between the rename and its tidying up
    trash.mkdir()
    make(tmp_path, monkeypatch=monkeypatch)
    assert "kept: same key" in capsys.readouterr().out
    assert not trash.exists()
    assert value_of(artifact) == value
    assert (artifact / "a.txt").stat().st_ino == inode
    (artifact / SUMS).unlink()
    (artifact / "a.txt").chmod(0o644)
    (artifact / "a.txt").write_text("damaged")
    make(tmp_path, monkeypatch=monkeypatch)
    assert value_of(artifact) == value, "damaged bytes are built again"
    assert (artifact / "a.txt").stat().st_ino != inode


def test_two_values_for_one_key_are_reported_not_overwritten(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = value_of(artifact)
    monkeypatch.setenv("ATELIER_REBUILD", "1")
    monkeypatch.setattr(sys.modules[__name__], "build", lambda job: (job.out / "a.txt").write_text("other"))
    with pytest.raises(SystemExit, match="not deterministic") as caught:
        make(tmp_path, monkeypatch=monkeypatch)
    assert value in str(caught.value)
    assert value_of(artifact) == value
    assert (artifact.parent / ".one.differs" / "a.txt").read_text() == "other"


def test_a_failing_build_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: Job[DummySpec]) -> None:
        (job.out / "half.txt").write_text("half")
        raise StageError("row 7: no text; add one")

    monkeypatch.setattr(sys.modules[__name__], "build", fail)
    with pytest.raises(SystemExit, match="clean: row 7: no text; add one"):
        make(tmp_path, monkeypatch=monkeypatch)
    assert list((tmp_path / "results" / "r" / "clean").iterdir()) == []


def test_key_depends_on_spec_and_on_order_of_inputs(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make(tmp_path, "two", monkeypatch, text="bye")
    keys = set()
    for inputs in ([artifact, other], [other, artifact], [artifact]):
        target = tmp_path / "results" / "r" / "mix" / f"m{len(keys)}"
        argv = ["prog", "--spec", "{}", "--output", str(target / SUMS), "--inputs", *(str(i / SUMS) for i in inputs)]
        monkeypatch.setattr(sys, "argv", argv)
        run_stage("mix", DummySpec, build)
        keys.add(read_record(target / RECORD)["key"])
    assert len(keys) == 3
    assert read_record(artifact / RECORD)["key"] != read_record(other / RECORD)["key"]


def test_killed_writers_leave_nothing_that_looks_finished(tmp_path: Path) -> None:
    """SIGKILL a process that publishes the same artifact over and over, at many moments."""
    target = tmp_path / "results" / "r" / "clean" / "x"
    for attempt in range(12):
        process = multiprocessing.get_context("fork").Process(target=_publish_forever, args=(target,))
        process.start()
        process.join(0.02 + 0.013 * attempt)
        process.kill()
        process.join()
        if (target / SUMS).exists():
            assert check_artifact(target, deep=True) == []
    sweep_drafts(target)
    assert not list(target.parent.glob(".x.tmp.*"))


def _publish_forever(target: Path) -> None:
    for number in range(10_000):
        draft = draft_folder(target)
        for name in ("a", "b", "c"):
            (draft / name).write_text(f"{name} {number}")
        sums = format_sums(hash_files(draft, ["a", "b", "c"]))
        (draft / SUMS).write_text(sums)
        import hashlib

        record = {"key": str(number), "value": hashlib.sha256(sums.encode()).hexdigest()}
        write_record(draft / RECORD, record)
        write_record(draft / "provenance.json", {})
        publish(draft, target)


@pytest.mark.parametrize(
    "line", ["abc  x", "0" * 64 + " x", "0" * 64 + "  /etc/passwd", "0" * 64 + "  a/../../b", "0" * 64 + "  " + SUMS]
)
def test_malformed_sums_are_refused_by_line(line: str) -> None:
    with pytest.raises(ArtifactError, match="S:1:"):
        parse_sums(line + "\n", Path("S"))


def test_file_names_with_other_line_ends_and_double_dots_are_found_again(tmp_path: Path) -> None:
    names = ["a\x0bb", "c\u2028d", "e\x85f", "g\x1ch", "i..j", "k  /l", "..m"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    sums = format_sums(hash_files(tmp_path, payload_files(tmp_path)))
    assert sorted(parse_sums(sums, Path("S"))) == sorted(names)
    (tmp_path / SUMS).write_text(sums)
    assert check_files(tmp_path) == []


def test_remembered_files_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    cache = StatCache(tmp_path / "cache.json")
    stats = {"a.txt": [3, 1, 1, 7], "b.txt": [4, 1, 1, 8]}
    for name, stat in stats.items():
        cache.remember(name, "0" * 64, stat)
    cache.save()
    claimed = dict.fromkeys(stats, "0" * 64)
    cache = StatCache(tmp_path / "cache.json")
    assert cache.all_known(stats, claimed) and not cache.all_known(stats, claimed | {"a.txt": "1" * 64})
    del stats["b.txt"], claimed["b.txt"]
    assert not cache.all_known(stats, claimed)
    cache.keep_only(stats)
    assert cache.all_known(stats, claimed) and cache.known("b.txt", [4, 1, 1, 8]) is None
    cache.save()
    assert StatCache(tmp_path / "cache.json").all_known(stats, claimed)


def test_hostile_file_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a\nb").write_text("x")
    with pytest.raises(ArtifactError, match="can't be written"):
        payload_files(tmp_path)


def test_records_guard_their_own_bytes(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_record(path, {"b": 1.5, "a": ["x", None]})
    assert read_record(path) == {"b": 1.5, "a": ["x", None]}
    path.write_text(path.read_text().replace("1.5", "1.6"))
    with pytest.raises(ArtifactError, match="its record says"):
        read_record(path)
    path.write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_record(path)


def test_canonical_json_refuses_what_has_no_single_form() -> None:
    assert canonical_json({"b": 1, "a": 1.7e-05}) == '{"a":1.7e-05,"b":1}'
    for value in (float("nan"), {1: 2}, {"a": {1, 2}}, {"f": print}):
        with pytest.raises(ValueError, match="canonical|string"):
            canonical_json(value)
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


def test_keyed_hash_has_golden_values_and_separates_its_parts() -> None:
    assert keyed_hash(1, "mix", "row") == keyed_hash(1, "mix", "row")
    assert keyed_hash("ab", "c") != keyed_hash("a", "bc")
    code = "from scripts.recipe.base import keyed_hash; print(keyed_hash(1, 'mix', 'row'))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert runs == {f"{keyed_hash(1, 'mix', 'row')}\n"}


def test_lock_round_trip(artifact: Path) -> None:
    entries = entries_of(artifact.parents[1])
    text = format_lock(entries)
    assert parse_lock(text, "x.lock") == entries
    assert [(e.stage, e.name, e.value) for e in entries] == [("clean", "one", value_of(artifact))]
    with pytest.raises(ArtifactError, match="x.lock:2"):
        parse_lock("# atelier lock 1\nclean one\n", "x.lock")
    with pytest.raises(ArtifactError, match="format 1"):
        parse_lock("something else", "x.lock")


def test_verify_command_exit_codes(artifact: Path) -> None:
    root = artifact.parents[1]

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scripts.artifact", "verify", str(root)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run().returncode == 0
    (artifact / "a.txt").chmod(0o644)
    (artifact / "a.txt").write_text("flip")
    done = run()
    assert done.returncode == 1
    assert "a.txt" in done.stdout
    assert "0 of 1 artifacts verified, 1 damaged" in done.stdout


def test_environment_must_match_the_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from scripts.artifact.environment import check_environment, stage_lock

    (tmp_path / "envs").mkdir()
    lock = tmp_path / "envs" / "data.lock"
    lock.write_text("# comment\npyyaml==0.0.1\n")
    monkeypatch.delenv("ATELIER_UNPINNED", raising=False)
    with pytest.raises(ArtifactError, match=r"pyyaml: found .*, locked 0\.0\.1"):
        check_environment("clean", tmp_path)
    monkeypatch.setenv("ATELIER_UNPINNED", "1")
    assert list(check_environment("clean", tmp_path)) == ["pyyaml"]
    before = stage_lock("clean", tmp_path)
    lock.write_text("pyyaml==0.0.1  # other comment\n")
    assert stage_lock("clean", tmp_path) == before
    lock.write_text("pyyaml==0.0.2\n")
    assert stage_lock("clean", tmp_path) != before


def header_file(path: Path, header: dict[str, object], body: bytes) -> Path:
    """Write a safetensors file with any header."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


BAD_HEADERS = {
    "gap": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
    "overlap": (
        {
            "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
        },
        bytes(6),
    ),
    "short": ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(8)),
    "shape": ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 16]}}, bytes(16)),
    "dtype": ({"a": {"dtype": "X9", "shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
    "negative": ({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, bytes(16)),
    "rest": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(8)),
    "fields": ({"a": {"dtype": "F32"}}, b""),
    "list": ([1, 2], b""),
}


@pytest.mark.parametrize("case", sorted(BAD_HEADERS))
def test_bad_safetensors_headers_are_refused(tmp_path: Path, case: str) -> None:
    from scripts.artifact.tensors import read_header

    header, body = BAD_HEADERS[case]
    path = header_file(tmp_path / "x.safetensors", header, body)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="not a valid safetensors file"):
        read_header(path)


def test_oversized_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    from scripts.artifact.tensors import read_header

    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 2_000_000_000) + b"{}")
    with pytest.raises(ArtifactError, match="header of 2,000,000,000 bytes"):
        read_header(path)


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", 7, "x.bin"])
def test_index_may_name_only_plain_files(tmp_path: Path, shard: object) -> None:
    from scripts.artifact.tensors import model_files

    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(ArtifactError, match="only plain"):
        model_files(tmp_path)


def test_tensor_digests_do_not_depend_on_sharding(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from scripts.artifact.tensors import digest_safetensors

    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, dtype=np.float16)}
    save_file(tensors, tmp_path / "whole.safetensors", metadata={"format": "pt"})
    save_file({"a": tensors["a"]}, tmp_path / "1.safetensors")
    save_file({"b": tensors["b"]}, tmp_path / "2.safetensors")
    whole, digests = digest_safetensors(tmp_path / "whole.safetensors")
    assert whole == sha256_file(tmp_path / "whole.safetensors")
    parts = {**digest_safetensors(tmp_path / "1.safetensors")[1], **digest_safetensors(tmp_path / "2.safetensors")[1]}
    assert parts == digests
    save_file({"a": tensors["a"].reshape(3, 2)}, tmp_path / "3.safetensors")
    assert digest_safetensors(tmp_path / "3.safetensors")[1]["a"] != digests["a"], "the shape is part of the digest"
