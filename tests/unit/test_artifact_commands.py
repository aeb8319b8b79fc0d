"""One entry point: help, exit codes, and one JSON value from every command."""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from scripts.artifact import statcache
from scripts.artifact.__main__ import COMMANDS, main
from scripts.artifact.commands.check import compare
from scripts.artifact.digest import RECORD, SUMS, ArtifactError, format_sums, hash_files, sha256_file
from scripts.artifact.record import read_record, write_record
from scripts.artifact.tensors import digest_safetensors
from tests.conftest import ROOT
from tests.unit.test_explain import made


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """`results/demo` with a source, what was cleaned from it, and a small model."""
    root = tmp_path / "results" / "demo"
    source = made(root, "download/demo-pippa", {"a.txt": "hello"})
    value = read_record(source / RECORD)["value"]
    made(root, "clean/demo-pippa", {"b.txt": "hello"}, inputs=[["download/demo-pippa", value]])
    weights = tmp_path / "w.safetensors"
    save_file({"a": np.arange(6, dtype=np.float32), "b": np.ones(4, dtype=np.float16)}, weights)
    _model(root / "create" / "tiny-llama", weights)
    return root


def _model(folder: Path, weights: Path) -> None:
    """Write an artifact of weights by hand."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights.read_bytes())
    (folder / SUMS).write_text(format_sums(hash_files(folder, ["model.safetensors"])))
    record = {"stage": "create", "name": "create/tiny-llama", "key": "1" * 64, "value": sha256_file(folder / SUMS)}
    record |= {"bytes": 1, "tensors": digest_safetensors(weights)[1], "counts": {}, "inputs": [], "spec": {}}
    write_record(folder / RECORD, {**record, "code": "", "lock": ""})
    write_record(folder / "provenance.json", {})


def run(*args: object) -> tuple[int, str]:
    """Run a command as typed; return its exit code and standard output."""
    command = [sys.executable, "-m", "scripts.artifact", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def test_one_help_page_names_every_command_and_exit_code() -> None:
    code, said = run("--help")
    assert code == 0
    assert [name for name in COMMANDS if f"\n    {name} " not in said] == []
    assert "exit codes:" in said and "--json" in said
    listed = (ROOT / "docs" / "provenance.md").read_text()
    assert [name for name in COMMANDS if f"scripts.artifact {name} " not in listed] == []


def _each(results: Path) -> Iterator[tuple[int, tuple[object, ...]]]:
    tmp, lock = results.parents[1], results.parents[1] / "demo.lock"
    artifact = results / "clean/demo-pippa"
    yield 0, ("verify", results)
    yield 0, ("lock", results, tmp)
    yield 0, ("compare", results, lock)
    yield 0, ("guard", tmp)
    yield 1, ("explain", artifact)  # made by hand: other code
    yield 0, ("diff", results, lock)
    yield 0, ("lineage", artifact)
    yield 0, ("gc", results)
    yield 2, ("store", tmp)
    yield 2, ("replay", results)
    yield 2, ("sign", artifact, "--key", tmp / "no.pem")
    yield 2, ("export", "bom", results / "nothing")
    yield 2, ("verify", tmp / "nowhere")


def test_every_command_answers_in_json_with_its_exit_code(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = set()
    for wanted, words in _each(results):
        code = main([*map(str, words), "--json"])
        value: Any = json.loads(capsys.readouterr().out)
        assert code == wanted, (words, value)
        assert (code == 2) == (isinstance(value, dict) and "error" in value), (words, value)
        asked.add(words[0])
    assert asked == set(COMMANDS)


def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("", "verify", "nothing", "gc x --dry-run --delete", "explain x --recipes y", "export bom"):
        with pytest.raises(SystemExit) as caught:
            main(line.split())
        assert caught.value.code == 2
        capsys.readouterr()


def flip(path: Path, at: int) -> None:
    """Flip a bit and put the times back, as bit rot does."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_verify_reads_what_may_have_changed_and_deep_reads_all(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verify(*options: str) -> tuple[int, int]:
        assert main(["verify", str(results), "--json", *options]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["artifacts"] == 3
        return found["files_read"], found["files_unchanged"]

    os.utime(results / "clean/demo-pippa/b.txt", (1, 1))
    assert verify() == verify() == (3, 0)  # so young that a change may leave no trace in a coarse clock's stat
    monkeypatch.setattr(statcache, "RACY_NS", -(10**18))
    assert (verify(), verify()) == ((3, 0), (0, 3))
    assert verify("--deep") == (3, 0)
    os.utime(results / "clean/demo-pippa/b.txt", (2, 2))
    assert (verify(), verify()) == ((1, 2), (0, 3))
    monkeypatch.setattr(statcache, "RACY_NS", 10**18)
    os.utime(results / "clean/demo-pippa/b.txt", (1, 1))
    assert verify() == verify() == (1, 2)  # what was known of it is forgotten


def test_verify_names_the_file_and_the_tensor(results: Path) -> None:
    """T3: a flipped byte of an intermediate."""
    flip(results / "create/tiny-llama/model.safetensors", -1)
    code, said = run("verify", results)
    assert code == 1
    assert "create/tiny-llama/model.safetensors: has SHA-256" in said and "1 tensors differ, first b" in said
    assert "2 of 3 artifacts verified, 1 damaged" in said
    flip(results / "create/tiny-llama/model.safetensors", -1)
    assert run("verify", "--deep", results)[0] == 0


def test_a_final_file_of_0_bytes_and_a_deleted_one_are_named(results: Path) -> None:
    """T5 and T9."""
    (results / "clean/demo-pippa/b.txt").write_bytes(b"")
    (results / "create/tiny-llama/model.safetensors").unlink()
    code, said = run("verify", results)
    assert code == 1
    assert "clean/demo-pippa/b.txt: has SHA-256" in said
    assert "create/tiny-llama/model.safetensors: missing" in said


def test_tensors_are_held_to_their_own_digests(results: Path) -> None:
    """A record that gives another tensor digest, while all files are sound."""
    path = results / "create/tiny-llama" / RECORD
    record = read_record(path)
    record["tensors"]["a"] = "0" * 64
    write_record(path, record)
    assert run("verify", "--deep", results)[0] == 0
    code, said = run("verify", "--tensors", results)
    assert code == 1 and "tensor a: has digest" in said


def test_a_release_elsewhere_is_verified_by_its_sums_alone(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "received"
    (results / "clean/demo-pippa").rename(folder)
    (folder / "provenance.json").unlink()
    assert run("verify", folder)[0] == 0
    flip(folder / "b.txt", 0)
    code, said = run("verify", folder)
    assert code == 1 and "b.txt" in said


def test_a_lock_that_was_never_written(results: Path, tmp_path: Path) -> None:
    arguments = argparse.Namespace(results=results, lock=tmp_path / "absent.lock", listed=False, json=False)
    with pytest.raises(ArtifactError, match=r"absent\.lock: no such file; `make lock RECIPE=\.\.\.` writes it"):
        compare(arguments)


def test_two_locks_of_different_order_and_a_lock_of_nothing(results: Path, tmp_path: Path) -> None:
    assert run("lock", tmp_path, tmp_path)[0] == 2, "a wrong folder must not write an empty lock"
    assert run("lock", results, tmp_path)[0] == 0
    lock = tmp_path / "demo.lock"
    text = lock.read_text().splitlines(keepends=True)
    (tmp_path / "other.lock").write_text("".join([text[0], *reversed(text[1:])]))
    assert run("diff", lock, tmp_path / "other.lock")[0] == 0
    (tmp_path / "other.lock").write_text("".join(text[:-1]))
    code, said = run("compare", results, tmp_path / "other.lock")
    assert code == 1 and "not in the lock" in said
    code, said = run("compare", "--listed", results, tmp_path / "other.lock")
    assert code == 0 and ", 0 differ" in said, "a release's lock names what it is made from, and nothing else"


def test_every_test_that_the_table_of_gaps_names_exists() -> None:
    text = (ROOT / "docs" / "provenance.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| [TKESC]\d", line)]
    assert [row.split("|")[1].strip() for row in rows] == [
        *("T2", "T3", "T4", "T5", "T6", "T6c", "T9", "K1", "K2", "K3", "E1", "S1", "S2", "S3", "C1", "C2")
    ]
    for row in rows:
        named = re.findall(r"`(\w+/\w+\.py)::(\w+)`", row)
        assert named, row
        for path, name in named:
            assert f"def {name}(" in (ROOT / "tests" / path).read_text(), f"{path}::{name}"
