"""kill -9 at every point of a checkpoint write: whatever lies there afterwards, the rerun ends in the same bytes.

One driver process loads torch once and forks: a child that dies at the k-th change of the work folder (seen by
Python's audit events, so nothing of the trainer is patched) or inside a file's bytes (the kernel ends it at a size
limit), then a child that runs the training again.
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.train_fixtures import make_base, make_pack, make_spec, train_alone

STEPS, SAVE = 4, 2
_CHANGES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")


@pytest.mark.slow
def test_a_training_killed_anywhere_in_a_checkpoint_ends_in_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.unit.test_train_kill_points", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    killed = [line for line in lines if line.startswith("killed ")]
    # Two checkpoints of a folder, a weight file, state.json and two renames each, and four sizes.
    assert len(killed) >= 14, done.stdout
    assert [line for line in killed if not line.endswith(" same")] == []
    assert any("os.rename" in line for line in killed) and any("bytes of" in line for line in killed)


def _drive(root: Path) -> None:
    """Train once without interruption, then once for every point."""
    base = make_base(root / "base")
    pack = make_pack(root / "pack", processes=1, steps=STEPS)
    launch = {"processes_per_node": 1, "portable_cpu": False}
    spec = make_spec(launch=launch, cadence={"eval_steps": SAVE, "save_steps": SAVE})

    def trained(at: Path, again: bool = False) -> None:
        train_alone(at / ("again" if again else "first"), spec, base, pack, pytest.MonkeyPatch(), at / "work")

    whole, log = root / "whole", root / "events"
    assert _forked(lambda: (_watch(whole / "work", log, None), trained(whole))) == 0
    events = log.read_text().splitlines()
    wanted = _digests(whole / "first")
    weights = max(p.stat().st_size for p in (whole / "work" / "checkpoints").rglob("rank-*"))
    points: list[tuple[str, Callable[[Path], Any]]] = [
        (event, lambda at, k=k: _watch(at / "work", None, k)) for k, event in enumerate(events, start=1)
    ]
    sizes = [1, weights // 3, weights // 2, weights - 1]
    points += [(f"{size} bytes of {weights}", lambda at, size=size: _limit(size)) for size in sizes]
    for number, (name, prepare) in enumerate(points):
        at = root / f"at{number}"
        status = _forked(lambda at=at, prepare=prepare: (prepare(at), trained(at)))  # type: ignore[misc]
        assert status in (-signal.SIGKILL, -signal.SIGXFSZ), f"{name}: the training ended with {status}"
        assert _forked(lambda at=at: trained(at, again=True)) == 0, name  # type: ignore[misc]
        same = _digests(at / "again") == wanted
        print("killed at", name, "same" if same else "DIFFERS", flush=True)


def _watch(folder: Path, log: Path | None, kill_at: int | None) -> None:
    """Note the changes below `folder`, or die before the k-th of them."""
    seen = 0
    text = str(folder / "checkpoints")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in _CHANGES or not any(isinstance(a, str | Path) and str(a).startswith(text) for a in args):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if log is not None:
            handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, f"{event} {Path(str(args[0])).name}\n".encode())
            os.close(handle)

    sys.addaudithook(hook)


def _limit(size: int) -> None:
    """Make the kernel end this process inside the write that exceeds `size` bytes of a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _forked(work: Callable[[], object]) -> int:
    """Run `work` in a child; return its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _digests(folder: Path) -> dict[str, str]:
    from scripts.artifact.digest import hash_files, payload_files

    return hash_files(folder, payload_files(folder))


if __name__ == "__main__":
    import scripts.train.worker  # noqa: F401  the children find torch and the trainer loaded

    _drive(Path(sys.argv[1]))
