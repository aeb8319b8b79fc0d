"""The stage's door side: check, launch the training processes, pass signals on, take the result."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from scripts.artifact.code import ROOT
from scripts.artifact.digest import value_of
from scripts.artifact.stage import Job, StageError
from scripts.recipe.hardware import GPU_ENV, PORTABLE_ENV
from scripts.recipe.train import Launch, TrainSpec
from scripts.train.checks import check_settings, read_config, read_pack
from scripts.train.handover import FAILURE, RESULT, Task, flatten

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def build(job: Job[TrainSpec]) -> None:
    """Train `spec.base` on the schedule of the same name and write the model folder into `job.out`.

    Raises:
        StageError: bad input, or the training failed; checkpoints stay in `job.work`.
        SystemExit: 128 + signal, after a signal: the job is to be run again and then goes on.
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
    job.work.mkdir(parents=True, exist_ok=True)
    for name in (RESULT, FAILURE):
        (job.work / name).unlink(missing_ok=True)
    values = {"base": value_of(base), "pack": value_of(pack), "world_size": spec.launch.processes}
    fingerprint = {**values, **flatten(spec.identity(), "spec")}
    task_path = job.work / f"task-{os.getpid()}.json"
    Task(spec, base.absolute(), pack.absolute(), job.out.absolute(), job.work.absolute(), fingerprint).write(task_path)
    caught, status = run_launcher(spec.launch, task_path)
    task_path.unlink(missing_ok=True)
    _take_result(job, caught, status)


def launcher_arguments(launch: Launch, task_path: Path, port: int) -> list[str]:
    """Return the command that starts all training processes of this node.

    Never with `--cpu`: accelerate then starts one plain process whatever `--num_processes` says. With
    `--use_fsdp` it goes through torch's elastic launcher on CPU and GPU alike.
    """
    options = {
        "num_processes": launch.processes,
        "num_machines": 1,
        "machine_rank": 0,
        "main_process_ip": "127.0.0.1",
        "main_process_port": port,
        "mixed_precision": "no",
        "dynamo_backend": "no",
        "fsdp_version": 2,
    }
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    start = [sys.executable, "-m", "accelerate.commands.launch", "--use_fsdp", *flags]
    return [*start, "--module", "scripts.train.worker", str(task_path)]


def launcher_environment(launch: Launch) -> dict[str, str]:
    """Return the environment of the training processes: threads, CPU or GPU pins, no network."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "FSDP_"))}
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    pins = PORTABLE_ENV if launch.portable_cpu and launch.device == "cpu" else {}
    own = {
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": str(launch.threads_per_process),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # All ranks are on this machine: its host name need not resolve.
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }
    return {**inherited, **own, **pins, **(GPU_ENV if launch.device == "cuda" else {})}


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
            launcher_arguments(launch, task_path, _free_port()),
            env={**launcher_environment(launch), "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGQUIT"},
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


def _take_result(job: Job[TrainSpec], caught: int, status: int) -> None:
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
    if caught or status == 0:
        raise SystemExit(128 + (caught or signal.SIGTERM))
    raise StageError(
        f"the training processes ended with status {status} (their messages are above); checkpoints are kept in "
        f"{job.work}, run the same command again to go on"
    )


def _free_port() -> int:
    """Return a port that is free now, so that two trainings can run side by side."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
