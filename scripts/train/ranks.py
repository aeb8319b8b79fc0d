"""The process group, and the few numbers that ranks tell each other each step."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from scripts.artifact.stage import StageError
from scripts.recipe.train import Launch


def join(launch: Launch) -> DeviceMesh:
    """Join the other processes and return the mesh of all ranks.

    Raises:
        StageError: the launcher started another number of processes than the recipe says, or a GPU is missing.
    """
    world, local_rank = int(os.environ.get("WORLD_SIZE", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    # `accelerate launch --cpu` starts one plain process whatever --num_processes says, and all would look well.
    if world != launch.processes:
        text = f"the launcher started {world or 'no group of'} processes"
        raise StageError(f"{text}; the recipe's launch has {launch.processes}")
    if launch.device == "cuda":
        if torch.cuda.device_count() <= local_rank:
            raise StageError(f"launch.device is cuda: process {local_rank} found {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(local_rank)
    backend = "nccl" if launch.device == "cuda" else "gloo"
    # An hour: rank 0 alone writes the weights of a 13B model while the others wait.
    dist.init_process_group(backend, timeout=timedelta(hours=1))
    mesh = init_device_mesh(launch.device, (world,))
    if dist.get_world_size() != launch.processes or mesh.size() != launch.processes:
        raise StageError(f"the process group has {dist.get_world_size()} members, not {launch.processes}")
    return mesh


def gather(values: list[float], mesh: DeviceMesh) -> list[list[float]]:
    """Return every rank's `values`, in order of ranks; each rank must give equally many.

    Sums are then formed in order of ranks: an all-reduce may add in any order, which changes the last bits.
    """
    mine = torch.tensor(values, dtype=torch.float64, device=mesh.device_type)
    everyone = torch.empty(mesh.size() * len(values), dtype=torch.float64, device=mesh.device_type)
    dist.all_gather_single(everyone, mine)
    return [list(row) for row in everyone.view(mesh.size(), -1).tolist()]


def gather_digests(digest: str, mesh: DeviceMesh) -> list[str]:
    """Return every rank's SHA-256 (64 hex digits), in order of ranks, without pickle."""
    rows = gather([float(b) for b in bytes.fromhex(digest)], mesh)
    return [bytes(int(b) for b in row).hex() for row in rows]


def barrier(mesh: DeviceMesh) -> None:
    """Wait for all ranks."""
    gather([0.0], mesh)
