"""Before unlocking a directory: make sure that none of its jobs is alive, here or on Slurm."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import psutil

_OURS = re.compile(r"(^|/)snakemake($|\s)|-m\s+scripts\.\w+|scripts\.train\.worker")


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
    """Return `job state name` of each Slurm job of this user whose working directory is `directory`."""
    if shutil.which("squeue") is None:
        return []
    listing = subprocess.run(
        ["squeue", "--me", "-h", "-o", "%i|%T|%Z|%k"], capture_output=True, text=True, timeout=30, check=False
    )
    rows = [line.split("|", 3) for line in listing.stdout.splitlines() if line.count("|") >= 3]
    return [f"{job} {state} {comment}" for job, state, folder, comment in rows if Path(folder) == directory]


def guard(directory: Path) -> list[str]:
    """Return one message for each way in which a job of this directory is still alive; empty when it is safe."""
    directory = directory.absolute()
    messages = []
    processes = live_processes(directory)
    if processes:
        pids = " ".join(line.split()[0] for line in processes)
        listed = "\n  ".join(processes)
        messages.append(f"these processes still work in {directory}:\n  {listed}\nwait for them, or: kill {pids}")
    jobs = live_slurm_jobs(directory)
    if jobs:
        ids = " ".join(line.split()[0] for line in jobs)
        listed = "\n  ".join(jobs)
        messages.append(f"these Slurm jobs still work in {directory}:\n  {listed}\nwait for them, or: scancel {ids}")
    return messages
