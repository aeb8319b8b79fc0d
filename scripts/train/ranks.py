"""The process group, and the few numbers that ranks tell each other each step."""

import os
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, rendezvous  # type: ignore[attr-defined]

from scripts.artifact.stage import StageError
from scripts.recipe.train import Launch

_JOIN_S = 600
"""Importing torch from a cold network file system takes minutes."""


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
    store, rank, _ = next(rendezvous("env://", timeout=timedelta(seconds=_JOIN_S)))
    roll_call(store, rank, world, _JOIN_S)
    backend = "nccl" if launch.device == "cuda" else "gloo"
    # An hour: rank 0 alone writes the weights of a 13B model while the others wait.
    group = PrefixStore("group", store)
    dist.init_process_group(backend, store=group, rank=rank, world_size=world, timeout=timedelta(hours=1))
    mesh = init_device_mesh(launch.device, (world,))
    if dist.get_world_size() != launch.processes or mesh.size() != launch.processes:
        raise StageError(f"the process group has {dist.get_world_size()} members, not {launch.processes}")
    return mesh


def roll_call(store: Any, rank: int, world: int, patience_s: float) -> None:
    """Wait until every rank is there, once; without this a missing process shows as an hour of silence.

    Args:
        store: a `torch.distributed` store that all ranks reach.
        rank: this process's.
        world: how many there must be.
        patience_s: seconds to wait for the others.

    Raises:
        StageError: a rank came twice, or some did not come within `patience_s` seconds.
    """
    if store.add(f"here/{rank}", 1) > 1:
        raise StageError(f"rank {rank} of {world} joined twice: the training was launched twice; end one of them")
    deadline = time.monotonic() + patience_s
    missing = list(range(world))
    while missing := [r for r in missing if not store.check([f"here/{r}"])]:
        if time.monotonic() > deadline:
            shown = ", ".join(map(str, missing[:16]))
            text = f"of {world} processes these ranks did not join within {patience_s:.0f} s: {shown}"
            raise StageError(f"{text}; see their nodes' messages above")
        time.sleep(0.05)


def gather(values: list[float], mesh: DeviceMesh) -> list[list[float]]:
    """Return every rank's `values`, in order of ranks; each rank must give equally many.

    Sums are then formed in order of ranks: an all-reduce may add in any order, which changes the last bits.
    """
    mine = torch.tensor(values, dtype=torch.float64, device=mesh.device_type)
    everyone = torch.empty(mesh.size() * len(values), dtype=torch.float64, device=mesh.device_type)
    # Its name before torch 2.13 was all_gather_into_tensor.
    (getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor)(everyone, mine)
    return [list(row) for row in everyone.view(mesh.size(), -1).tolist()]


def gather_digests(digest: str, mesh: DeviceMesh) -> list[str]:
    """Return every rank's SHA-256 (64 hex digits), in order of ranks, without pickle."""
    rows = gather([float(b) for b in bytes.fromhex(digest)], mesh)
    return [bytes(int(b) for b in row).hex() for row in rows]


def barrier(mesh: DeviceMesh) -> None:
    """Wait for all ranks."""
    gather([0.0], mesh)
