"""Why a training failed reaches people even where the disk holds no byte more."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.train.handover import FAILURE, Task
from scripts.train.worker import _tell
from tests.unit.train_fixtures import make_spec


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
