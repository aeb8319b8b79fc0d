"""A training that was asked to stop puts its own Slurm job back into the queue: no time limit costs one of the retries.

Slurm ends a job at its time limit and leaves it at that; Snakemake then counts a failed attempt, and after
`retries` of them the run is over. A job that requeues itself keeps its number, and Snakemake goes on waiting for it.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_CLIENT_S = 30
"""Slurm's clients wait for minutes where slurmctld is away; the grace time is shorter."""
_STEP = re.compile(r"step-(\d+)")


def newest_step(work: Path) -> int:
    """Return the step of the newest finished checkpoint in a work folder; 0 where there is none."""
    found = (_STEP.fullmatch(state.parent.name) for state in work.glob("checkpoints/step-*/state.json"))
    return max((int(match[1]) for match in found if match), default=0)


def requeue(environment: Mapping[str, str], started_at: int, stopped_at: int) -> bool:
    """Requeue the Slurm job that runs this training, where that is right; return whether it was done.

    Not right: outside a job that Snakemake's plugin submitted for this rule; for a job that is already on its way out
    (scancel, preempted, over its time); and where nothing was gained since the start of this job, which would begin
    again without end.

    Args:
        environment: this process's.
        started_at: step of the checkpoint that this job went on from.
        stopped_at: step of the newest checkpoint.
    """
    job, path = environment.get("SLURM_JOB_ID", ""), environment.get("PATH")
    if not job or stopped_at <= started_at or not all(shutil.which(name, path=path) for name in ("squeue", "scontrol")):
        return False
    state, _, comment = _client(environment, "squeue", "-h", "-j", job, "-o", "%T|%k").partition("|")
    if state != "RUNNING" or not comment.startswith("rule_train_model"):
        return False
    done = _client(environment, "scontrol", "requeue", job, fallback="refused")
    if done:
        return False
    print(f"train: job {job} is queued again, to go on from step {stopped_at}", file=sys.stderr, flush=True)
    return True


def _client(environment: Mapping[str, str], *command: str, fallback: str = "") -> str:
    """Return what a Slurm client prints, `fallback` where it fails or slurmctld does not answer."""
    try:
        done = subprocess.run(
            command, env=dict(environment), capture_output=True, text=True, timeout=_CLIENT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return fallback
    if done.returncode:
        print(f"train: {' '.join(command)}: {done.stderr.strip()}", file=sys.stderr, flush=True)
        return fallback
    return done.stdout.strip()
