"""How the training processes are started: one accelerate launcher a node, by itself or through `srun`."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.artifact.code import ROOT
from scripts.artifact.stage import StageError
from scripts.recipe.hardware import GPU_ENV, PORTABLE_ENV
from scripts.recipe.train import Launch


def start_command(launch: Launch, task_path: Path) -> list[str]:
    """Return the command that starts every process of the training.

    On several nodes it is one `srun` task a node, each of which becomes that node's launcher (`scripts.train.node`).
    """
    if launch.nodes == 1:
        return launcher_arguments(launch, task_path, _free_port())
    options = [f"--nodes={launch.nodes}", f"--ntasks={launch.nodes}", "--ntasks-per-node=1", "--cpu-bind=none"]
    options += [f"--gpus-per-node={launch.processes_per_node}"] if launch.device == "cuda" else []
    options += ["--kill-on-bad-exit=1", "--label"]
    return ["srun", *options, sys.executable, "-m", "scripts.train.node", str(task_path)]


def launcher_arguments(
    launch: Launch, task_path: Path, port: int, machine_rank: int = 0, address: str = "127.0.0.1"
) -> list[str]:
    """Return the command that starts the training processes of one node.

    Never with `--cpu`: accelerate then starts one plain process whatever `--num_processes` says. With
    `--use_fsdp` it goes through torch's elastic launcher on CPU and GPU alike.
    """
    options = {
        "num_processes": launch.processes,
        "num_machines": launch.nodes,
        "machine_rank": machine_rank,
        "main_process_ip": address,
        "main_process_port": port,
        "rdzv_backend": "static",
        "mixed_precision": "no",
        "dynamo_backend": "no",
        "fsdp_version": 2,
    }
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    start = [sys.executable, "-m", "accelerate.commands.launch", "--use_fsdp", *flags]
    return [*start, "--module", "scripts.train.worker", str(task_path)]


def launcher_environment(launch: Launch) -> dict[str, str]:
    """Return the environment of the training processes: threads, CPU or GPU pins, no network."""
    # SLURM_GPUS: the job's GPUs with their name, which srun would hold against the bare count that it is given.
    foreign = ("ACCELERATE_", "FSDP_", "SLURM_GPUS")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    pins = PORTABLE_ENV if launch.portable_cpu and launch.device == "cpu" else {}
    own = {
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": str(launch.threads_per_process),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # A signal is the workers' business; the launcher would end them 30 s after it.
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGQUIT",
    }
    if launch.nodes == 1:
        # All ranks are on this machine: its host name need not resolve.
        own["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return {**inherited, **own, **pins, **(GPU_ENV if launch.device == "cuda" else {})}


def gpus_here() -> int | None:
    """Return the number of GPUs that a training process would find on this machine; None where torch can't say.

    A process of its own asks: the door neither loads torch nor touches a GPU.
    """
    command = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **GPU_ENV})
        return int(found.stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def check_gpus(launch: Launch, model: str) -> None:
    """Refuse more processes than this machine has GPUs: the launcher would end in a page of tracebacks.

    Raises:
        StageError: too few GPUs; the message has the keys for a machine without any.
    """
    found = gpus_here() if launch.device == "cuda" else None
    if found is None or found >= launch.processes_per_node:
        return
    where, wanted = f"models.{model}.train", launch.processes_per_node
    usual = " (launch's defaults)" if launch == Launch() else ""
    fewer = f"set {where}.launch.processes_per_node to at most {found}, or " if found else ""
    raise StageError(
        f"{where}.launch: device cuda with processes_per_node {wanted}{usual} needs {wanted} GPUs; this machine has "
        f"{found}; {fewer}to train on the CPU set launch: {{device: cpu, processes_per_node: 1}} and numerics: "
        "{precision: fp32, attention: sdpa}"
    )


def check_nodes(launch: Launch, environment: Mapping[str, str]) -> None:
    """Refuse several nodes where they can't be reached.

    Raises:
        StageError: more than one node outside a Slurm job or without `srun`.
    """
    if launch.nodes == 1:
        return
    lacking = [name for name in ("SLURM_JOB_ID",) if name not in environment]
    lacking += [] if shutil.which("srun", path=environment.get("PATH")) else ["srun"]
    if lacking:
        text = f"launch.nodes is {launch.nodes}, which are started by srun inside a Slurm job; found no {lacking[0]}"
        raise StageError(f"{text}; run it there (docs/training.md, several nodes), or set nodes: 1")


def claim_path(task_path: Path, machine_rank: int) -> Path:
    """Return the file by which a node says that its launcher has started."""
    return task_path.with_name(f"{task_path.stem}.node-{machine_rank}")


def take_claims(task_path: Path, nodes: int) -> list[int]:
    """Return the nodes that never started, and remove what the others left."""
    paths = [claim_path(task_path, rank) for rank in range(nodes)]
    missing = [rank for rank, path in enumerate(paths) if not path.exists()]
    for path in paths:
        path.unlink(missing_ok=True)
    return missing


def _free_port() -> int:
    """Return a port that is free now, so that two trainings can run side by side."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
