"""A training that was asked to stop: when its Slurm job goes back into the queue, and when it must not."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.train import worker
from scripts.train.requeue import newest_step, requeue
from scripts.train.worker import WorkFolderHeldError


def clients(folder: Path, squeue: str, scontrol: str = "exit 0") -> dict[str, str]:
    """Return the environment of a job whose Slurm clients say this."""
    for name, text in {"squeue": squeue, "scontrol": scontrol}.items():
        program = folder / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {folder}/calls\n{text}\n')
        program.chmod(0o755)
    return {"SLURM_JOB_ID": "77", "PATH": f"{folder}:/usr/bin:/bin"}


def calls(folder: Path) -> str:
    path = folder / "calls"
    return path.read_text() if path.exists() else ""


RUNNING = "echo 'RUNNING|rule_train_model_wildcards_m'"


def test_a_running_training_that_got_on_is_queued_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert requeue(clients(tmp_path, RUNNING), 40, 50)
    assert calls(tmp_path).endswith("scontrol requeue 77\n")
    assert "job 77 is queued again, to go on from step 50" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("squeue", "steps"),
    [
        ("echo 'COMPLETING|rule_train_model_wildcards_m'", (40, 50)),  # scancel, preemption, over its time
        ("echo 'RUNNING|mine'", (40, 50)),  # somebody's own sbatch script in which Snakemake runs
        ("exit 1", (40, 50)),
        (RUNNING, (50, 50)),  # nothing gained: it would begin again without end
        (RUNNING, (0, 0)),
    ],
)
def test_any_other_is_left_alone(tmp_path: Path, squeue: str, steps: tuple[int, int]) -> None:
    assert not requeue(clients(tmp_path, squeue), *steps)
    assert "requeue" not in calls(tmp_path)


def test_no_slurm_and_a_refusal_are_no_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not requeue({"SLURM_JOB_ID": "77", "PATH": str(tmp_path)}, 0, 9)
    assert not requeue({"PATH": "/usr/bin"}, 0, 9)
    refused = clients(tmp_path, RUNNING, "echo 'Requested operation is presently disabled' >&2; exit 1")
    assert not requeue(refused, 0, 9)
    assert "presently disabled" in capsys.readouterr().err


def test_newest_step_counts_finished_checkpoints_only(tmp_path: Path) -> None:
    assert newest_step(tmp_path) == 0
    for name in ("step-00000008", "step-00000016", "step-00000024", ".draft-00000032"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    for name in ("step-00000008", "step-00000016", ".draft-00000032"):
        (tmp_path / "checkpoints" / name / "state.json").touch()
    assert newest_step(tmp_path) == 16


HOLDER = """
import fcntl, os, sys, time
handle = open(sys.argv[1], "w")
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
if sys.argv[2] == "publishes":
    os.unlink(sys.argv[1])
"""


@pytest.mark.parametrize(("ending", "patience", "text"), [("publishes", 30, "just finished"), ("lives", 1, "has held")])
def test_the_lease_of_a_work_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, patience: int, text: str
) -> None:
    """Whoever waits for a training that then publishes must not begin at step 0 in the folder that was removed."""
    monkeypatch.setattr(worker, "_LOCK_WAIT_S", patience)
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock"), ending]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    if ending == "publishes":
        pause = worker.time.sleep

        def let_go(seconds: float) -> None:
            holder.stdin.close()
            holder.wait()
            pause(0)

        monkeypatch.setattr(worker.time, "sleep", let_go)
    with pytest.raises(WorkFolderHeldError, match=text):
        worker._lock(tmp_path)
    holder.stdin.close()
    holder.wait()


def test_a_free_work_folder_is_taken(tmp_path: Path) -> None:
    with worker._lock(tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "_LOCK_WAIT_S", 0)
        with pytest.raises(WorkFolderHeldError):
            worker._lock(tmp_path)
