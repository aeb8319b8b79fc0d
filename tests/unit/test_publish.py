"""Publication against a hub on the loopback: nothing without being asked, nothing twice, nothing unverified."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.artifact.digest import FACTS, RECORD, SUMS, format_sums, hash_files, payload_files, value_of
from scripts.artifact.record import write_record
from tests.conftest import ROOT
from tests.unit.upload_server import TOKEN, UploadServer

FILES = {
    "README.md": b"# tiny\n",
    "config.json": b"{}\n",
    "model-00001-of-00002.safetensors": b"a" * 3000,
    "model-00002-of-00002.safetensors": b"b" * 2000,
    "sillytavern/context.json": b"{}\n",
    "tiny-F16.gguf": b"c" * 1000,
}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A finished release artifact."""
    folder = tmp_path / "results" / "demo" / "release" / "tiny"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / SUMS).write_text(format_sums(hash_files(folder, payload_files(folder))))
    write_record(folder / RECORD, {"value": value_of(folder)})
    write_record(folder / FACTS, {"host": "secret-host"})
    return folder


def publish(
    folder: Path, *args: str, server: UploadServer | None = None, token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    """Run `python -m scripts.publish`, by plain HTTP where a server is given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    env = {**kept, "PYTHONPATH": str(ROOT), "HF_HOME": str(folder.parents[3] / "hub"), "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_TOKEN": token} if token else {}
    env |= {"HF_ENDPOINT": server.address} if server else {"HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "scripts.publish", *args, str(folder / SUMS)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=120)


def test_a_dry_run_lists_files_and_sizes_and_asks_nobody(release: Path) -> None:
    with UploadServer() as server:
        done = publish(release, "--owner=me", server=server)
        assert done.returncode == 0, done.stderr
        assert server.requests == []
    assert "me/tiny: 8 files" in done.stdout
    assert "3,000  model-00001-of-00002.safetensors" in done.stdout
    assert "nothing was uploaded" in done.stdout


def test_an_upload_brings_every_file_but_the_record_of_the_machine(release: Path) -> None:
    with UploadServer() as server:
        done = publish(release, "--owner=me", "--upload=yes", server=server)
        assert done.returncode == 0, done.stdout + done.stderr
        there = server.files["me/tiny"]
    assert {name: there[name] for name in FILES} == FILES
    assert set(there) == {*FILES, SUMS, RECORD}
    assert server.repositories == {"me/tiny": True}
    assert server.commits == [f"Atelier release {value_of(release)[:16]}"]
    assert TOKEN not in done.stdout + done.stderr


def test_what_arrived_before_a_failure_is_not_sent_again(release: Path) -> None:
    with UploadServer() as server:
        server.refuse_puts_after = 1
        first = publish(release, "--owner=me", "--upload=yes", server=server)
        assert first.returncode == 1
        assert "run it again" in first.stderr and "Traceback" not in first.stderr
        assert server.files["me/tiny"] == {}, "a half release is not visible"
        assert server.puts == [3000]
        server.refuse_puts_after = None
        second = publish(release, "--owner=me", "--upload=yes", server=server)
        assert second.returncode == 0, second.stdout + second.stderr
        assert server.puts == [3000, 2000, 1000]
        third = publish(release, "--owner=me", "--upload=yes", server=server)
        assert "nothing to do, all is there" in third.stdout
        assert len(server.commits) == 1


def test_a_changed_release_sends_only_what_changed(release: Path) -> None:
    with UploadServer() as server:
        assert publish(release, "--owner=me", "--upload=yes", server=server).returncode == 0
        (release / "README.md").write_bytes(b"# tiny, again\n")
        (release / SUMS).write_text(format_sums(hash_files(release, payload_files(release))))
        write_record(release / RECORD, {"value": value_of(release)})
        done = publish(release, "--owner=me", "--upload=yes", server=server)
        assert "me/tiny: 3 files uploaded" in done.stdout, done.stdout + done.stderr
        assert server.files["me/tiny"]["README.md"] == b"# tiny, again\n"
        assert len(server.puts) == 3


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "record"])
def test_a_damaged_release_is_refused_before_anybody_is_asked(release: Path, damage: str) -> None:
    path = release / ("extra.txt" if damage == "added" else RECORD if damage == "record" else "tiny-F16.gguf")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"d" * 1000)
    with UploadServer() as server:
        done = publish(release, "--owner=me", "--upload=yes", server=server)
        assert server.requests == []
    assert done.returncode == 1
    assert path.name in done.stderr and "refusing to publish" in done.stderr


@pytest.mark.parametrize(
    ("args", "token", "said"),
    [
        (["--upload=yes"], TOKEN, "set release.owner in the recipe"),
        (["--upload=yes", "--owner=me"], None, "set the variable HF_TOKEN"),
        (["--upload=perhaps"], TOKEN, "allowed: yes, no"),
    ],
)
def test_what_is_missing_is_said(release: Path, args: list[str], token: str | None, said: str) -> None:
    done = publish(release, *args, token=token)
    assert done.returncode in {1, 2}
    assert said in done.stderr


def test_a_wrong_token_ends_in_one_message(release: Path) -> None:
    with UploadServer() as server:
        done = publish(release, "--owner=me", "--upload=yes", server=server, token="hf_WRONG")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "hf_WRONG" not in done.stdout + done.stderr
