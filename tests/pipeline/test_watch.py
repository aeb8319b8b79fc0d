"""The live view beside a real run: what a training writes today is what the view reads."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from scripts.watch.state import View, Watcher
from tests.pipeline.bench import Bench, kill_session

TARGET = "results/tiny/train/sapling/SHA256SUMS"


def watching(bench: Bench) -> tuple[subprocess.Popen[bytes], int]:
    """Start the program on a terminal of its own; return it and the terminal."""
    here, there = pty.openpty()
    command = [sys.executable, "-m", "scripts.watch", "--interval", "0.3"]
    env = bench.environment(PYTHONPATH=str(bench.folder), TERM="xterm", COLUMNS="100", LINES="30")
    process = subprocess.Popen(command, cwd=bench.folder, env=env, stdin=there, stdout=there, stderr=there)
    os.close(there)
    return process, here


def read(terminal: int) -> str:
    """Return what the terminal was sent since the last call."""
    found = b""
    while select.select([terminal], [], [], 0)[0]:
        try:
            found += os.read(terminal, 65536)
        except OSError:  # the program has ended
            break
    return found.decode("utf-8", "replace")


def test_a_real_training_is_shown_killed_and_resumed(bench: Bench) -> None:
    finished = Watcher(bench.folder, []).look()
    # The fixture's own run, or one of another test there that found nothing to do.
    assert finished.status in {"finished", "nothing"}, "a copy of a finished run"
    bench.edit(bench.recipe, "learning_rate: 3.0e-3", "learning_rate: 2.9e-3")
    program, terminal = watching(bench)
    run = subprocess.Popen(
        bench.command(TARGET),
        cwd=bench.folder,
        env=bench.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    watcher, sent, view = Watcher(bench.folder, []), "", finished
    deadline = time.monotonic() + 240
    try:
        while not _trains(view) and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            view, sent = watcher.look(), sent + read(terminal)
        assert _trains(view), view
        (job,) = [job for job in view.jobs if job.state == "running"]
        assert view.status == "running" and job.title == "train sapling"
        assert job.memory_bytes is not None and job.memory_bytes > 100_000_000
        assert job.training is not None
        assert job.training.steps == _steps(bench.folder) and job.training.eval_loss is not None
        assert job.training.tokens_per_s and job.training.memory_bytes
    finally:
        kill_session(run.pid)
        run.wait()
    view = watcher.look()
    assert (view.status, [job.state for job in view.jobs]) == ("killed", ["unfinished"])
    time.sleep(0.7)
    sent += read(terminal)
    assert "train sapling" in sent and "make resume" in sent
    program.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 30
    while program.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        read(terminal)
    assert program.returncode == 0
    os.close(terminal)


def _trains(view: View) -> bool:
    return any(job.training and job.training.losses and job.training.tokens_per_s for job in view.jobs)


def _steps(folder: Path) -> int:
    import json

    return int(json.loads((folder / "results/tiny/pack/sapling/pack.json").read_text())["steps"])
