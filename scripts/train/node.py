"""`srun python -m scripts.train.node <task.json>`: become the accelerate launcher of this node of a Slurm job."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.artifact.stage import StageError
from scripts.recipe.train import Launch
from scripts.train.handover import Task
from scripts.train.launch import check_gpus, claim_path, launcher_arguments, launcher_environment

_FIRST_PORT, _PORTS = 20_000, 20_000


def place(launch: Launch, environment: Mapping[str, str]) -> tuple[int, str, int]:
    """Return (machine rank, address of the first node, port) from what `srun` tells each of its tasks.

    Raises:
        StageError: not a task of srun, or of another number of nodes than the recipe's.
    """
    names = ("SLURM_NODEID", "SLURM_STEP_NUM_NODES", "SLURM_LAUNCH_NODE_IPADDR", "SLURM_JOB_ID")
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise StageError(f"{missing[0]} is not set: this program is started by srun, one task a node")
    rank, nodes = int(environment["SLURM_NODEID"]), int(environment["SLURM_STEP_NUM_NODES"])
    if nodes != launch.nodes:
        raise StageError(f"srun started {nodes} nodes, launch.nodes is {launch.nodes}; give the job that many")
    # The address, not the first name of the node list: names of nodes need not resolve on the nodes.
    port = _FIRST_PORT + int(environment["SLURM_JOB_ID"]) % _PORTS
    return rank, environment["SLURM_LAUNCH_NODE_IPADDR"], port


def main(task_path: Path) -> None:
    """Claim this node's place and turn into its launcher.

    Raises:
        StageError: the place is taken: the training was launched twice. Or the node has too few GPUs.
    """
    spec = Task.read(task_path).spec
    launch = spec.launch
    rank, address, port = place(launch, os.environ)
    check_gpus(launch, spec.model)
    try:
        claim_path(task_path, rank).touch(exist_ok=False)
    except FileExistsError:
        text = f"node {rank} of {launch.nodes} was started twice for {task_path.name}"
        raise StageError(f"{text}: the training was launched twice; end one of them") from None
    # Slurm signals every process of a step: the launcher ignores it, the workers write a checkpoint and end.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    command = launcher_arguments(launch, task_path, port, rank, address)
    os.execve(command[0], command, launcher_environment(launch))  # noqa: S606 no shell


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except StageError as error:
        sys.exit(f"train: {error}")
