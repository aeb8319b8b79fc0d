"""Before unlocking: what Slurm says of living jobs, and what counts when it says nothing."""

from pathlib import Path

import pytest

from scripts.artifact import guard as module
from scripts.artifact.guard import guard, live_slurm_jobs


def squeue(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "squeue"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_jobs_of_this_directory_count_by_whatever_path_they_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, link = tmp_path / "here", tmp_path / "link"
    here.mkdir()
    link.symlink_to(here)
    lines = [f"7|RUNNING|{link}|rule_train", f"8|PENDING|{here}|rule_merge", f"9|RUNNING|{tmp_path}|else"]
    squeue(tmp_path, "\n".join(f"echo '{line}'" for line in lines), monkeypatch)
    assert live_slurm_jobs(here) == ["7 RUNNING rule_train", "8 PENDING rule_merge"]
    (message,) = guard(here)
    assert "scancel 7 8" in message


def test_a_machine_without_a_cluster_has_no_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue(tmp_path, "echo 'squeue: fatal: Could not establish a configuration source' >&2; exit 1", monkeypatch)
    assert guard(tmp_path) == []


def test_a_silent_slurm_is_no_leave_to_unlock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue(tmp_path, "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", monkeypatch)
    (message,) = guard(tmp_path)
    assert "can't be told" in message and "Unable to contact" in message
    monkeypatch.setattr(module, "_PATIENCE_S", 0.1)
    squeue(tmp_path, "exec sleep 5", monkeypatch)
    (message,) = guard(tmp_path)
    assert "no answer within 0.1 s" in message
