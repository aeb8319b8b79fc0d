"""What clusters do to jobs. Each ends in the digests of the quiet run, or in one clear error with nothing lost."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipeline.bench import kill_session
from tests.slurm.bench import SlurmBench, interrupt
from tests.slurm.cluster import ACCOUNT

CHECKPOINTS = "results/tiny/.work/train/*/checkpoints/step-*"
# A job's end must be seen within a minute.
NOTICED_S = 60


def training(slurm: SlurmBench) -> tuple[subprocess.Popen[str], str]:
    """Start the training, wait for its first checkpoint, return Snakemake's process and the Slurm job's id."""
    process = slurm.start("train")
    slurm.wait_for("a checkpoint", lambda: list(slurm.bench.folder.glob(CHECKPOINTS)))
    (job,) = slurm.jobs("train_model", "RUNNING")
    return process, job


def same_weights(slurm: SlurmBench, quiet: SlurmBench) -> None:
    """The training has the bytes of the quiet run, it was resumed, and nothing of it lives on."""
    name = "tiny/train/sapling"
    assert slurm.bench.sums()[name] == quiet.bench.sums()[name]
    facts = json.loads((slurm.bench.folder / "results" / name / "provenance.json").read_text())
    assert facts["resumed_at_step"] > 0, "the training began again instead of going on"
    nothing_lives(slurm)


def nothing_lives(slurm: SlurmBench) -> None:
    """No process works in this directory any more, on any node."""
    slurm.wait_for("all processes to end", lambda: not alive(slurm), 60)


def alive(slurm: SlurmBench) -> list[tuple[int, str]]:
    """Return pid and command line of the processes of Slurm jobs in this directory."""
    found = []
    for pid, text in slurm.cluster.processes():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cwd").readlink() == slurm.bench.folder:
                found.append((pid, text))
    return found


def workers(slurm: SlurmBench) -> list[tuple[int, str]]:
    """Return pid and command line of the training processes."""
    found = workers_or_none(slurm)
    assert found
    return found


def workers_or_none(slurm: SlurmBench) -> list[tuple[int, str]]:
    """Return pid and command line of the training processes, as far as they have started."""
    return [(pid, text) for pid, text in alive(slurm) if "scripts.train.worker" in text and "launch" not in text]


def ended(slurm: SlurmBench, job: str) -> float:
    """Wait until a job is gone from its node, return the time."""
    gone = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL"}
    slurm.wait_for(f"the end of job {job}", lambda: job in slurm.jobs("train_model", *gone))
    return time.monotonic()


def noticed(slurm: SlurmBench, since: float, measured: dict[str, float]) -> None:
    """Snakemake tells of the failure soon after `since`."""
    slurm.wait_for("the failure to be noticed", lambda: "Error in" in slurm.output.read_text(), NOTICED_S)
    measured["noticed"] = time.monotonic() - since
    assert measured["noticed"] < NOTICED_S


def queued_again(slurm: SlurmBench, job: str, since: float, measured: dict[str, float]) -> None:
    """Slurm itself queues the job again; skip the two minutes that it then lets it wait."""
    slurm.wait_for("the job to be queued again", lambda: slurm.jobs("train_model", "PENDING"), NOTICED_S)
    measured["queued again"] = time.monotonic() - since
    slurm.cluster.call("scontrol", "update", f"jobid={job}", "starttime=now")


def same_job(slurm: SlurmBench, job: str) -> None:
    """The job was not submitted a second time."""
    assert slurm.jobs("train_model") == [job]


def test_cancelled_job_is_tried_again_and_resumes(
    untrained: SlurmBench, quiet: SlurmBench, measured: dict[str, float]
) -> None:
    process, job = training(untrained)
    untrained.cluster.call("scancel", job)
    noticed(untrained, ended(untrained, job), measured)
    run = untrained.finish(process)
    assert run.code == 0, untrained.report()
    assert len(untrained.jobs("train_model")) == 2
    same_weights(untrained, quiet)


@pytest.mark.matrix
def test_job_over_its_time_is_tried_again_and_resumes(
    untrained: SlurmBench, quiet: SlurmBench, measured: dict[str, float]
) -> None:
    """A training that hangs, so that only the time limit ends it: SIGTERM is of no use, SIGKILL follows."""
    process, job = training(untrained)
    for pid, _ in workers(untrained):
        os.kill(pid, signal.SIGSTOP)
    untrained.cluster.call("scontrol", "update", f"jobid={job}", "timelimit=1")
    noticed(untrained, ended(untrained, job), measured)
    run = untrained.finish(process)
    assert run.code == 0, untrained.report()
    same_weights(untrained, quiet)


@pytest.mark.matrix
def test_time_limits_cost_no_retry(untrained: SlurmBench, quiet: SlurmBench, measured: dict[str, float]) -> None:
    """The warning before the time limit, twice: a checkpoint within the grace time, the same job in the queue again."""
    untrained.changes = {"retries": 0}
    process, job = training(untrained)
    log = untrained.bench.folder / "results/tiny/logs/train/sapling.log"
    for _ in range(2):
        begun, paused = time.monotonic(), [pid for pid, _ in workers(untrained)]
        # Slurm looks at time limits twice a minute; this training would be over before that.
        for pid in paused:
            os.kill(pid, signal.SIGSTOP)
        before = {p.name for p in untrained.bench.folder.glob(CHECKPOINTS)}
        # The recipe asks for the warning two minutes before the end.
        untrained.cluster.call("scontrol", "update", f"jobid={job}", "timelimit=2")
        untrained.wait_for("the warning", lambda: "asked to stop" in log.read_text())
        for pid in paused:
            os.kill(pid, signal.SIGCONT)
        untrained.wait_for("the job to be queued again", lambda: untrained.jobs("train_model", "PENDING"))
        measured["queued again"] = time.monotonic() - begun
        assert {p.name for p in untrained.bench.folder.glob(CHECKPOINTS)} - before, "no checkpoint was written"
        steps = len(list(untrained.bench.folder.glob(CHECKPOINTS)))
        untrained.cluster.call("scontrol", "update", f"jobid={job}", "timelimit=60", "starttime=now")
        untrained.wait_for("a checkpoint", lambda n=steps: len(list(untrained.bench.folder.glob(CHECKPOINTS))) > n)
    run = untrained.finish(process)
    assert run.code == 0, untrained.report()
    same_job(untrained, job)
    same_weights(untrained, quiet)


@pytest.mark.matrix
def test_preempted_job_is_queued_again_and_resumes(
    untrained: SlurmBench, quiet: SlurmBench, measured: dict[str, float]
) -> None:
    cluster = untrained.cluster
    process, job = training(untrained)
    options = ("-p", "h100-high", "-N", "2", "--exclusive", "-J", "urgent", "-t", "5", "-A", ACCOUNT)
    begun = time.monotonic()
    urgent = cluster.call("sbatch", "--parsable", *options, "--output=/dev/null", "--wrap", "sleep 1000").strip()
    queued_again(untrained, job, begun, measured)
    cluster.call("scancel", urgent)
    run = untrained.finish(process)
    assert run.code == 0, untrained.report()
    same_job(untrained, job)
    same_weights(untrained, quiet)


@pytest.mark.matrix
def test_lost_node(untrained: SlurmBench, quiet: SlurmBench, measured: dict[str, float]) -> None:
    """A node crashes with all that runs on it."""
    cluster = untrained.cluster
    process, job = training(untrained)
    node = cluster.call("squeue", "-h", "-j", job, "-o", "%N").strip()
    begun = time.monotonic()
    try:
        cluster.stop(f"slurmd.{node}", signal.SIGKILL)
        for pid in [*cluster.step_daemons(job), *(pid for pid, _ in cluster.processes())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        queued_again(untrained, job, begun, measured)
        run = untrained.finish(process)
    finally:
        cluster.start_node(node)
    assert run.code == 0, untrained.report()
    same_job(untrained, job)
    same_weights(untrained, quiet)


@pytest.mark.matrix
def test_node_that_is_cut_off_while_its_training_goes_on(
    untrained: SlurmBench, quiet: SlurmBench, measured: dict[str, float]
) -> None:
    """Slurm gives the node up and starts the job on another one, but on the lost node the training still writes."""
    cluster = untrained.cluster
    process, job = training(untrained)
    node = cluster.call("squeue", "-h", "-j", job, "-o", "%N").strip()
    begun = time.monotonic()
    try:
        paused = [pid for pid, _ in workers(untrained)]
        # Slurm needs 20 s to miss the node; this training would be over before that.
        for pid in paused:
            os.kill(pid, signal.SIGSTOP)
        cluster.stop(f"slurmd.{node}", signal.SIGKILL)
        queued_again(untrained, job, begun, measured)
        assert workers(untrained), "the lost node's training was to live on"
        for pid in paused:
            os.kill(pid, signal.SIGCONT)
        run = untrained.finish(process)
    finally:
        cluster.start_node(node)
    assert run.code == 0, untrained.report()
    assert untrained.bench.sums()["tiny/train/sapling"] == quiet.bench.sums()["tiny/train/sapling"]
    nothing_lives(untrained)


@pytest.mark.matrix
def test_drained_node_finishes_its_job(untrained: SlurmBench, quiet: SlurmBench, measured: dict[str, float]) -> None:
    cluster = untrained.cluster
    process, job = training(untrained)
    node = cluster.call("squeue", "-h", "-j", job, "-o", "%N").strip()
    try:
        cluster.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
        run = untrained.finish(process)
    finally:
        cluster.call("scontrol", "update", f"nodename={node}", "state=resume")
    assert run.code == 0, untrained.report()
    same_job(untrained, job)
    assert untrained.bench.sums()["tiny/train/sapling"] == quiet.bench.sums()["tiny/train/sapling"]


@pytest.mark.matrix
def test_kill_9_of_snakemake_while_its_job_lives(
    untrained: SlurmBench, quiet: SlurmBench, measured: dict[str, float]
) -> None:
    process, job = training(untrained)
    kill_session(process.pid)
    process.wait()
    assert untrained.jobs("train_model", "RUNNING") == [job], "the job lives on without Snakemake"
    guard = subprocess.run(
        [sys.executable, "-m", "scripts.artifact", "guard", "."],
        cwd=untrained.bench.folder,
        env=untrained.bench.environment(**untrained.cluster.environment(), PYTHONPATH=str(untrained.bench.folder)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert guard.returncode == 1
    assert f"scancel {job}" in guard.stderr
    # Whoever unlocks all the same gets two jobs; the second waits for the first instead of writing beside it.
    untrained.run("--unlock")
    run = untrained.run("train")
    assert run.code == 0, untrained.report()
    assert untrained.bench.sums()["tiny/train/sapling"] == quiet.bench.sums()["tiny/train/sapling"]
    nothing_lives(untrained)


@pytest.mark.matrix
def test_ctrl_c_ends_the_jobs_and_the_next_run_resumes(
    untrained: SlurmBench, quiet: SlurmBench, measured: dict[str, float]
) -> None:
    process, job = training(untrained)
    begun = time.monotonic()
    interrupt(process)
    ended(untrained, job)
    assert untrained.finish(process, 300).code != 0
    measured["ended"] = time.monotonic() - begun
    nothing_lives(untrained)
    run = untrained.run("train")
    assert run.code == 0, untrained.report()
    same_weights(untrained, quiet)


@pytest.mark.matrix
def test_restart_of_slurmctld(untrained: SlurmBench, quiet: SlurmBench, measured: dict[str, float]) -> None:
    process, job = training(untrained)
    untrained.cluster.stop("slurmctld", signal.SIGKILL)
    time.sleep(5)
    untrained.cluster.start_controller()
    run = untrained.finish(process)
    assert run.code == 0, untrained.report()
    same_job(untrained, job)
    assert untrained.bench.sums()["tiny/train/sapling"] == quiet.bench.sums()["tiny/train/sapling"]


@pytest.mark.matrix
def test_job_that_always_fails_is_tried_three_times_and_named(
    untrained: SlurmBench, measured: dict[str, float]
) -> None:
    tokens = untrained.bench.folder / "results/tiny/pack/sapling/train_input_ids.npy"
    tokens.chmod(0o644)
    content = bytearray(tokens.read_bytes())
    content[-1] ^= 1
    tokens.write_bytes(bytes(content))
    process = untrained.start("train")
    untrained.wait_for("the first failure", lambda: untrained.jobs("train_model", "FAILED"))
    noticed(untrained, time.monotonic(), measured)
    run = untrained.finish(process)
    assert run.code != 0
    assert len(untrained.jobs("train_model", "FAILED")) == 3
    (log,) = untrained.bench.folder.glob("results/tiny/logs/train/*.log")
    assert "train_input_ids.npy" in log.read_text()
    assert str(log.relative_to(untrained.bench.folder)) in run.output
    nothing_lives(untrained)


def test_refused_account_is_one_clear_error(untrained: SlurmBench, measured: dict[str, float]) -> None:
    untrained.changes = {"default-resources/slurm_account": "nobody"}
    run = untrained.run("train", timeout=300)
    assert run.code != 0
    assert "nobody" in run.output and "account" in run.output.lower()
    assert untrained.jobs("train_model") == []


@pytest.mark.matrix
def test_full_log_disk(untrained: SlurmBench, quiet: SlurmBench, tmp_path: Path, measured: dict[str, float]) -> None:
    """It costs Slurm's log, and nothing else: the stage's own log lies beside the results."""
    if os.getuid():
        pytest.skip("only root may mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        (small / "filler").write_bytes(b"x" * 65536)
        untrained.changes = {"slurm-logdir": str(small)}
        run = untrained.run("train")
        assert run.code == 0, untrained.report()
        assert not os.statvfs(small).f_bavail, "the disk was to be full to the end"
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert untrained.bench.sums()["tiny/train/sapling"] == quiet.bench.sums()["tiny/train/sapling"]
    assert "train: step" in (untrained.bench.folder / "results/tiny/logs/train/sapling.log").read_text()
