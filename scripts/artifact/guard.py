"""Before unlocking a directory: make sure that none of its jobs is alive, here or on Slurm."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import psutil

_OURS = re.compile(r"(^|/)snakemake($|\s)|-m\s+scripts\.\w+|scripts\.train\.worker")

_PATIENCE_S = 30
_NO_CLUSTER = "Could not establish a configuration source"
"""What squeue says on a machine that has it, but belongs to no cluster."""


class SlurmSilentError(Exception):
    """Slurm is there, but does not answer."""


def live_processes(directory: Path) -> list[str]:
    """Return `pid command` of each process of this user that works on the workflow in `directory`."""
    mine = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter(["pid", "cwd", "cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if process.info["pid"] in mine or not process.info["cwd"] or not _OURS.search(command):
            continue
        if Path(process.info["cwd"]) == directory and process.status() != psutil.STATUS_ZOMBIE:
            found.append(f"{process.info['pid']} {command[:160]}")
    return found


def live_slurm_jobs(directory: Path) -> list[str]:
    """Return `job state name` of each Slurm job of this user whose working directory is `directory`.

    Raises:
        SlurmSilentError: there is a cluster, but it does not say.
    """
    if shutil.which("squeue") is None:
        return []
    command = ["squeue", "--me", "-h", "-o", "%i|%T|%Z|%k"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        raise SlurmSilentError(f"no answer within {_PATIENCE_S} s") from None
    if listing.returncode:
        if _NO_CLUSTER in listing.stderr:
            return []
        raise SlurmSilentError(listing.stderr.strip() or f"exit status {listing.returncode}")
    rows = [line.split("|", 3) for line in listing.stdout.splitlines() if line.count("|") >= 3]
    # Slurm keeps the path as it was typed at submission, perhaps through a link.
    same = directory.resolve()
    return [f"{job} {state} {comment}" for job, state, folder, comment in rows if Path(folder).resolve() == same]


def guard(directory: Path) -> list[str]:
    """Return one message for each way in which a job of this directory is still alive; empty when it is safe."""
    directory = directory.absolute()
    messages = []
    processes = live_processes(directory)
    if processes:
        pids = " ".join(line.split()[0] for line in processes)
        listed = "\n  ".join(processes)
        messages.append(f"these processes still work in {directory}:\n  {listed}\nwait for them, or: kill {pids}")
    try:
        jobs = live_slurm_jobs(directory)
    except SlurmSilentError as error:
        text = f"whether Slurm jobs still work in {directory} can't be told, squeue failed: {error}"
        return [*messages, f"{text}\ntry again when Slurm answers"]
    if jobs:
        ids = " ".join(line.split()[0] for line in jobs)
        listed = "\n  ".join(jobs)
        messages.append(f"these Slurm jobs still work in {directory}:\n  {listed}\nwait for them, or: scancel {ids}")
    return messages
