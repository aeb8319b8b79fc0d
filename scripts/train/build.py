"""The stage's door side: check, launch the training processes, pass signals on, take the result."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from scripts.artifact.digest import ArtifactError, value_of
from scripts.artifact.places import results_root
from scripts.artifact.stage import Job, StageError
from scripts.recipe.train import Launch, TrainSpec
from scripts.train.checks import check_settings, read_config, read_pack
from scripts.train.handover import FAILURE, RESULT, Task, flatten
from scripts.train.launch import check_gpus, check_nodes, launcher_environment, start_command, take_claims
from scripts.train.requeue import newest_step, requeue
from scripts.train.trackers import check_trackers

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def build(job: Job[TrainSpec]) -> None:
    """Train `spec.base` on the schedule of the same name and write the model folder into `job.out`.

    Raises:
        StageError: bad input, or the training failed; checkpoints stay in `job.work`.
        SystemExit: 128 + signal, after a signal: the job is to be run again and then goes on. A Slurm job has then
            been queued again, where it may.
    """
    spec = job.spec
    pack = job.of_stage("pack").get(spec.model)
    stages = ("download", "create", "train", "merge")
    bases = [job.inputs[f"{stage}/{spec.base}"] for stage in stages if f"{stage}/{spec.base}" in job.inputs]
    if pack is None or len(bases) != 1:
        raise StageError(f"needs the base {spec.base!r} and pack/{spec.model}; found {list(job.inputs)}")
    base = bases[0]
    config = read_config(base)
    facts = read_pack(pack, spec, int(config["vocab_size"]))
    check_settings(spec, facts)
    check_nodes(spec.launch, os.environ)
    if spec.launch.nodes == 1:  # else each node looks for its own
        check_gpus(spec.launch, spec.model)
    check_trackers(list(spec.trackers))
    job.work.mkdir(parents=True, exist_ok=True)
    for name in (RESULT, FAILURE):
        (job.work / name).unlink(missing_ok=True)
    values = {"base": value_of(base), "pack": value_of(pack), "world_size": spec.launch.processes}
    fingerprint = {**values, **flatten(spec.identity(), "spec")}
    task_path = job.work / f"task-{os.getpid()}.json"
    here, pack, out, work = (path.absolute() for path in (base, pack, job.out, job.work))
    Task(spec, here, pack, out, work, fingerprint, _curves(job).absolute()).write(task_path)
    before = newest_step(job.work)
    caught, status = run_launcher(spec.launch, task_path)
    task_path.unlink(missing_ok=True)
    missing = take_claims(task_path, spec.launch.nodes) if spec.launch.nodes > 1 else []
    try:
        _take_result(job, caught, status, missing)
    except SystemExit:
        requeue(os.environ, before, newest_step(job.work))
        raise


def _curves(job: Job[TrainSpec]) -> Path:
    """Return where event files go: beside the logs of the results, outside every artifact."""
    try:
        return results_root(job.out.absolute()) / "logs" / "tensorboard"
    except ArtifactError:  # a training outside a results folder
        return job.work / "tensorboard"


def run_launcher(launch: Launch, task_path: Path) -> tuple[int, int]:
    """Start the launcher, wait for it, and return (signal that was caught or 0, exit status).

    A signal is passed on by closing the workers' standard input, which the kernel also does if this process is
    killed: they write a checkpoint at the next step and end. The launcher itself ignores the signals, because on
    one it would give its workers 30 s, too short for the checkpoint of a large model, and then kill them.
    """
    caught: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        caught.append(number)

    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        # What is ignored at exec stays ignored in the launcher; the workers set their own handlers.
        process = subprocess.Popen(
            start_command(launch, task_path),
            env=launcher_environment(launch),
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        for number in _SIGNALS:
            signal.signal(number, note)
        assert process.stdin is not None
        while process.poll() is None:
            if caught and not process.stdin.closed:
                print("train: asked to stop; writing a checkpoint at the next step", file=sys.stderr, flush=True)
                process.stdin.close()
            time.sleep(0.05)
        process.stdin.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return (caught[0] if caught else 0), process.returncode


def _take_result(job: Job[TrainSpec], caught: int, status: int, missing: list[int]) -> None:
    result, failure = job.work / RESULT, job.work / FAILURE
    if failure.is_file():
        raise StageError(failure.read_text(encoding="utf-8"))
    if status == 0 and result.is_file():
        content = json.loads(result.read_text(encoding="utf-8"))
        job.digests.update(content["files"])
        job.tensors.update(content["tensors"])
        job.facts.update(content["facts"])
        job.counts.update({k: v for k, v in content["counts"].items() if k != "settings"})
        return
    if status == 0 and not caught and not job.work.is_dir():
        raise StageError(
            f"{job.work} was taken away while this training ran: another process has published the same artifact; "
            "run the same command again"
        )
    if caught or status == 0:
        raise SystemExit(128 + (caught or signal.SIGTERM))
    if missing:
        nodes = f"node {missing[0]}" if len(missing) == 1 else f"nodes {', '.join(map(str, missing))}"
        raise StageError(
            f"{nodes} of {job.spec.launch.nodes} never started a launcher (status {status}); see srun above"
        )
    raise StageError(
        f"the training processes ended with status {status} (their messages are above); checkpoints are kept in "
        f"{job.work}, run the same command again to go on"
    )
