"""Do finished jobs again in a clean folder, and compare: what a lock claims is only as good as the last replay."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.artifact.code import ROOT, stage_code
from scripts.artifact.differ import inside
from scripts.artifact.digest import FACTS, RECORD, SUMS, ArtifactError, value_of
from scripts.artifact.environment import stage_lock
from scripts.artifact.places import artifact_folders
from scripts.artifact.record import read_record
from scripts.recipe.base import keyed_hash


@dataclass(frozen=True)
class Candidate:
    """One finished job."""

    name: str
    command: tuple[str, ...]
    """Arguments of the stage's program, without inputs and output."""
    inputs: tuple[str, ...]
    seconds: float
    obstacle: str
    """Why it can't be replayed; empty: it can."""


@dataclass(frozen=True)
class Outcome:
    """What a replay gave."""

    name: str
    same: bool
    text: str
    seconds: float
    """Of the first run."""


def candidates(root: Path, max_seconds: float) -> list[Candidate]:
    """Return every artifact of `results/<recipe>` as a job, with what stands against its replay."""
    return [_candidate(root, folder, max_seconds) for folder in artifact_folders(root)]


def draw(found: list[Candidate], count: int, seed: int) -> list[Candidate]:
    """Return `count` of the jobs that can be replayed, by keyed hash: the same seed draws the same ones."""
    able = [candidate for candidate in found if not candidate.obstacle]
    chosen = sorted(able, key=lambda candidate: keyed_hash(seed, "replay", candidate.name))[:count]
    return sorted(chosen, key=lambda candidate: [c.name for c in found].index(candidate.name))


def new_seed() -> int:
    """Return a seed that nobody could know before; it is printed, so that a draw can be repeated."""
    return secrets.randbits(32)


def replay(root: Path, chosen: list[Candidate]) -> Iterator[Outcome]:
    """Run each job in a clean folder and compare bytes; folders of jobs that came out otherwise are kept."""
    for candidate in chosen:
        clean = Path(tempfile.mkdtemp(prefix="atelier-replay-"))
        outcome = _replay_one(root, candidate, clean)
        if outcome.same:
            shutil.rmtree(clean)
        yield outcome


def _candidate(root: Path, folder: Path, max_seconds: float) -> Candidate:
    name = folder.relative_to(root).as_posix()
    try:
        record, facts = read_record(folder / RECORD), read_record(folder / FACTS)
    except ArtifactError as error:
        return Candidate(name, (), (), 0.0, str(error))
    inputs = tuple(str(name) for name, _ in record["inputs"])
    seconds = float(facts.get("seconds", 0.0))
    argv = [str(word) for word in facts.get("argv", [])]
    command: tuple[str, ...] = ()
    if "--spec" in argv[:-1]:
        command = ("--spec", argv[argv.index("--spec") + 1])
    if "--threads" in argv[:-1]:
        command += ("--threads", argv[argv.index("--threads") + 1])
    obstacle = _obstacle(root, record, command, seconds, max_seconds)
    return Candidate(name, command, inputs, seconds, obstacle)


def _obstacle(root: Path, record: dict[str, Any], command: tuple[str, ...], seconds: float, max_seconds: float) -> str:
    stage = str(record["stage"])
    if not command:
        return "its command was not recorded"
    if record["code"] != stage_code(stage) or record["lock"] != stage_lock(stage):
        return "its code or its packages have changed since: `explain` says what"
    for name, value in record["inputs"]:
        if not (root / name / SUMS).is_file() or value_of(root / name) != value:
            return f"its input {name} is not there any more"
    if stage == "download" and '"folder":null' in "".join(command[1].split()):
        return "needs the network"
    return f"took {seconds:,.0f} s" if seconds > max_seconds else ""


def _replay_one(root: Path, job: Candidate, clean: Path) -> Outcome:
    target = clean / "results" / root.name / job.name
    stage = job.name.split("/")[0]
    inputs = ["--inputs", *(str((root / name / SUMS).absolute()) for name in job.inputs)] if job.inputs else []
    # The environment that the Snakefile gives to jobs; a store must not answer instead of the work.
    kept = {name: value for name, value in os.environ.items() if name != "ATELIER_STORE"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.{stage}", *job.command, *inputs, "--output", str(target / SUMS)],
        cwd=clean,
        env={**kept, **offline, "PATH": path, "PYTHONPATH": str(ROOT), "ATELIER_REBUILD": "1"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return Outcome(job.name, False, f"failed: {last[0]}; see {clean}", job.seconds)
    old, new = read_record(root / job.name / RECORD), read_record(target / RECORD)
    if old["key"] != new["key"]:
        return Outcome(job.name, False, f"another key: {new['key'][:16]}, not {old['key'][:16]}", job.seconds)
    if old["value"] == new["value"]:
        return Outcome(job.name, True, f"same bytes, value {old['value'][:16]}", job.seconds)
    parts = "; ".join(inside(root / job.name, target)[:5])
    return Outcome(job.name, False, f"NOT the same bytes: {parts}; kept in {target}", job.seconds)
