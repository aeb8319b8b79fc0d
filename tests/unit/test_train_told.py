"""Why a training failed reaches people even where the disk holds no byte more."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.artifact.stage import StageError
from scripts.train.handover import FAILURE, Task
from scripts.train.launch import check_gpus
from scripts.train.worker import _tell
from tests.unit.train_fixtures import make_base, make_pack, make_spec, train


@pytest.mark.parametrize("room", [True, False])
def test_a_reason_that_finds_no_room_is_in_the_log(
    tmp_path: Path, room: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    if not room:
        monkeypatch.setattr("scripts.train.worker.write_atomic", full)
    _tell(Task(make_spec(), tmp_path, tmp_path, tmp_path, tmp_path, {}, tmp_path), "row 7: bad")
    assert (tmp_path / FAILURE).exists() == room
    said = capsys.readouterr().err
    assert said == "" if room else said == f"train: row 7: bad; {FAILURE}: [Errno 28] No space left on device\n"


def test_a_worker_leaves_with_its_status_after_what_others_registered() -> None:
    """Without the interpreter's own end, in which threads of torch have aborted a finished training."""
    code = (
        "import atexit, sys; from scripts.train.worker import leave;"
        "atexit.register(print, 'closed'); print('done', file=sys.stderr); leave(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "closed\n", "done\n")


def test_a_machine_without_the_gpus_of_the_recipe_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, pack = make_base(tmp_path / "base"), make_pack(tmp_path / "pack", processes=8)
    spec = make_spec(launch={"device": "cuda", "processes_per_node": 8, "portable_cpu": False})
    monkeypatch.setattr("scripts.train.build.run_launcher", lambda *_: pytest.fail("the launcher was started"))
    for found, advice in ((0, "has 0; to train on the CPU"), (2, "processes_per_node to at most 2, or to train on")):
        monkeypatch.setattr("scripts.train.launch.gpus_here", lambda found=found: found)
        with pytest.raises(
            StageError, match=rf"\(launch's defaults\) needs 8 GPUs; this machine has {found}.*"
        ) as told:
            train(tmp_path / str(found), spec, base, pack)
        assert advice in str(told.value) and "launch: {device: cpu, processes_per_node: 1}" in str(told.value)
    for found in (8, None):
        monkeypatch.setattr("scripts.train.launch.gpus_here", lambda found=found: found)
        check_gpus(spec.launch, "tuned")
    check_gpus(make_spec().launch, "tuned")


def test_gpus_are_counted_in_a_process_of_its_own() -> None:
    code = (
        "import sys; from scripts.train.launch import gpus_here; print(gpus_here()); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == torch.cuda.device_count()
