"""Writers that live on, come twice, or lose a hand: orphans, two runs at once, a killed rank, Ctrl-C twice."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.faults.points import faults_after, resume
from tests.faults.programs import command_of, environment, in_soak
from tests.faults.programs import run as run_program
from tests.faults.shim import Shim, needs_gcc
from tests.pipeline.bench import Bench, kill_session
from tests.pipeline.conftest import logs


@contextmanager
def started(bench: Bench, command: list[str], **extra: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a command in a session of its own; whatever is left of it at the end is killed."""
    process = subprocess.Popen(
        command,
        cwd=bench.folder,
        env=environment(bench, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell starts what runs in its background with SIGINT ignored, and that would be inherited down to here.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        kill_session(process.pid)
        process.wait()


def wait_for(what: "object", seconds: float = 120) -> bool:
    """Wait until the function returns something true."""
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.01)
    return bool(what())  # type: ignore[operator]


@needs_gcc()
@in_soak
@pytest.mark.parametrize("stage", ["mix/chats", "merge/grafted"])
def test_an_orphan_that_lives_on_beside_its_rerun(bench: Bench, tmp_path: Path, stage: str) -> None:
    """K1 and K2 of plain Snakemake, without the guard: the rerun ends while the orphan sleeps, then it wakes up."""
    sums = bench.sums()
    folder = bench.folder / "results/tiny" / stage
    shutil.rmtree(folder)
    shim = Shim(tmp_path / "shim", bench.folder / "results", match=f"/{stage.split('/')[0]}/", kinds="wrs", at=8)
    with started(bench, bench.command(), **shim.environment()) as main:
        assert wait_for(shim.fired), "the job never came to the point where it is stopped"
        fired = shim.fired()
        assert fired is not None
        orphan = psutil.Process(fired[0])
        main.kill()
        main.wait()
        assert orphan.status() == psutil.STATUS_STOPPED
        guard = bench.python("-m", "scripts.artifact", "guard", ".")
        assert guard.returncode == 1 and str(orphan.pid) in guard.stderr
        assert bench.run("--unlock").code == 0
        run = bench.run("--rerun-incomplete")
        assert run.code == 0, run.output + logs(bench)
        assert bench.sums() == sums
        orphan.send_signal(signal.SIGCONT)
        with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            orphan.wait(60)
        assert not psutil.pid_exists(orphan.pid) or orphan.status() == psutil.STATUS_ZOMBIE
    assert faults_after(bench, sums) == []
    assert bench.run().nothing


def test_two_runs_in_one_directory(bench: Bench) -> None:
    """The second one is refused by Snakemake's lock with one message; the first one ends as if alone."""
    sums = bench.sums()
    for name in ("train/sapling", "merge/grafted"):
        shutil.rmtree(bench.folder / "results/tiny" / name)
    with started(bench, bench.command()) as first:
        assert wait_for(lambda: list(bench.folder.glob(".snakemake/locks/*.lock")))
        second = bench.run()
        assert second.code != 0
        assert "Directory cannot be locked" in second.output
        assert not second.jobs
        output, _ = first.communicate(timeout=300)
    assert first.returncode == 0, output + logs(bench)
    assert faults_after(bench, sums) == []


@pytest.mark.parametrize("artifact", ["clean/demo-pippa", pytest.param("train/sapling", marks=in_soak)])
def test_two_writers_of_one_artifact(bench: Bench, artifact: str) -> None:
    """As with --nolock or from two machines: one publishes, the other may fail, with one message; never a mixture."""
    sums = bench.sums()
    folder = bench.folder / "results/tiny" / artifact
    command = command_of(folder)
    shutil.rmtree(folder)
    with started(bench, command) as first, started(bench, command) as second:
        ended = [(p.communicate(timeout=300)[0], p.returncode) for p in (first, second)]
    for output, code in ended:
        stage = artifact.split("/")[0]
        # A rank whose peer has failed says so at length; the last word is the stage's, in one line.
        assert code == 0 or (code == 1 and output.splitlines()[-1].startswith(f"{stage}: ")), output
        assert code == 0 or stage == "train" or "Traceback" not in output, output
    if all(code for _, code in ended):  # each swept the other's draft away: the command is given again
        assert run_program(bench, command).returncode == 0
    assert faults_after(bench, sums) == []


def worker_of(bench: Bench, rank: int) -> psutil.Process | None:
    """Return the training process of a rank, once it has begun to write checkpoints."""
    if not list(bench.folder.glob("results/tiny/.work/train/*/checkpoints/step-*")):
        return None
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if "scripts.train.worker" in words or any(w.endswith("train/worker.py") for w in words):
            with contextlib.suppress(psutil.Error):
                if Path(process.cwd()) == bench.folder and process.environ().get("RANK") == str(rank):
                    return process
    return None


@pytest.mark.slow
@pytest.mark.parametrize("rank", [pytest.param(0, marks=in_soak), 1])
def test_kill_9_of_one_rank(bench: Bench, rank: int) -> None:
    sums = bench.sums()
    shutil.rmtree(bench.folder / "results/tiny/train/sapling")
    with started(bench, bench.command()) as main:
        found: list[psutil.Process] = []
        assert wait_for(lambda: found or found.extend(filter(None, [worker_of(bench, rank)])))
        found[0].kill()
        main.communicate(timeout=300)
        assert main.returncode != 0
    log = (bench.folder / "results/tiny/logs/train/sapling.log").read_text()
    assert "checkpoints are kept in" in log, log
    run = resume(bench)
    assert run.code == 0, run.output + logs(bench)
    assert faults_after(bench, sums) == []


@pytest.mark.slow
@pytest.mark.parametrize("pause", [pytest.param(0.0, marks=in_soak), 1.0], ids=["at once", "a second later"])
def test_ctrl_c_twice(bench: Bench, pause: float) -> None:
    """A terminal sends SIGINT to the whole group: Snakemake, the job, its shell, and the launcher's own group not."""
    sums = bench.sums()
    shutil.rmtree(bench.folder / "results/tiny/train/sapling")
    with started(bench, bench.command()) as main:
        pattern = "results/tiny/.work/train/*/checkpoints/step-*"
        assert wait_for(lambda: list(bench.folder.glob(pattern))), "the training never began"
        os.killpg(main.pid, signal.SIGINT)
        time.sleep(pause)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(main.pid, signal.SIGINT)
        output, _ = main.communicate(timeout=300)
        assert main.returncode != 0
    assert wait_for(lambda: bench.python("-m", "scripts.artifact", "guard", ".").returncode == 0), "a job lives on"
    run = resume(bench)
    assert run.code == 0, run.output + output + logs(bench)
    assert faults_after(bench, sums) == []
