"""What jobs asked for and what they used: a table with advice, from our records and Slurm's accounting."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.artifact.code import ROOT
from scripts.artifact.digest import FACTS, ArtifactError
from scripts.artifact.record import read_record
from scripts.recipe.graph import Artifact, Graph, artifact_path
from scripts.recipe.load import load_recipe
from scripts.recipe.problems import RecipeError
from scripts.recipe.resources import job_resources

# A request is called too large above three times the use, and too small above nine tenths of it; the advice leaves
# half again as much as was used, since the next run's data may be larger.
_TOO_LARGE, _TOO_SMALL, _MARGIN = 3.0, 0.9, 1.5
_STEP_MB = 1_000
_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}


@dataclass(frozen=True)
class Use:
    """One finished job: what was asked for, and what it took."""

    artifact: Artifact
    asked: dict[str, int]
    """`threads`, `mem_mb` (of a node), `runtime` (minutes), `gpu`: what Slurm gave, else what the recipe asks for."""
    minutes: float
    mem_mb: float
    busy_threads: float
    """CPU seconds divided by seconds."""
    measured_by: str
    """`slurm` where its accounting knows the job, else `records`."""

    def advice(self) -> str:
        """Return what to ask for next time; empty where the request fits."""
        found = []
        if self.asked["mem_mb"] * _TOO_SMALL < self.mem_mb or self.asked["mem_mb"] > _TOO_LARGE * self.mem_mb:
            wanted = -(-int(self.mem_mb * _MARGIN) // _STEP_MB) * _STEP_MB
            if wanted != self.asked["mem_mb"]:
                found.append(f"mem_mb={wanted}")
        if self.asked["runtime"] * _TOO_SMALL < self.minutes:
            found.append(f"runtime={max(1, round(self.minutes * _MARGIN))}")
        if self.asked["threads"] > 1 and self.busy_threads < self.asked["threads"] / _TOO_LARGE:
            found.append(f"threads={max(1, round(self.busy_threads))}")
        return " ".join(found)


@dataclass(frozen=True)
class Account:
    """One job as Slurm's accounting has it; of a job that was queued again, its last run."""

    seconds: int
    peak_mb: float
    """Of the step that took most."""
    asked: dict[str, int]
    """What it was given, as in `Use.asked`; a key that Slurm does not tell is left out."""


def uses(graph: Graph, results: Path) -> list[Use]:
    """Return one entry for each artifact of the recipe that exists below `results`, in order of the flow.

    Raises:
        ArtifactError: a record can't be read.
    """
    found, facts = [], {}
    for artifact in graph.jobs:
        path = results / artifact_path(artifact) / FACTS
        if path.is_file():
            facts[artifact] = read_record(path)
    accounts = slurm_accounts([str(f["slurm_job_id"]) for f in facts.values() if f.get("slurm_job_id")])
    for artifact, fact in facts.items():
        seconds = float(fact["seconds"])
        mem_mb = max(float(fact["peak_rss_bytes"]), float(fact["children_peak_rss_bytes"])) / 1e6
        minutes, by, asked = seconds / 60, "records", job_resources(graph, artifact)
        if account := accounts.get(str(fact.get("slurm_job_id"))):
            minutes, mem_mb, by = account.seconds / 60, max(mem_mb, account.peak_mb), "slurm"
            asked |= account.asked
        busy = float(fact["cpu_seconds"]) / max(seconds, 1e-9)
        found.append(Use(artifact, asked, minutes, mem_mb, busy, by))
    return found


def slurm_accounts(jobs: Sequence[str]) -> dict[str, Account]:
    """Return {job id: account} from sacct; empty without accounting."""
    if not jobs or shutil.which("sacct") is None:
        return {}
    command = ["sacct", "-n", "-P", "-j", ",".join(jobs), "-o", "JobID,ElapsedRaw,MaxRSS,TimelimitRaw,AllocTRES"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return {}
    found: dict[str, Account] = {}
    for line in done.stdout.splitlines():
        job, elapsed, rss, limit, given = line.split("|")
        before = found.get(job.split(".")[0], Account(0, 0.0, {}))
        # Time limit and allocation stand in the job's own line; peaks in those of its steps.
        asked = before.asked if "." in job else _asked(limit, given)
        seconds, peak = max(before.seconds, int(elapsed or 0)), max(before.peak_mb, _megabytes(rss))
        found[job.split(".")[0]] = Account(seconds, peak, asked)
    return found


def _asked(limit: str, given: str) -> dict[str, int]:
    """Return what a job was given: its limit in minutes (or a word), and a list such as `cpu=2,mem=4000M,node=1`."""
    given_of = dict(pair.split("=", 1) for pair in given.split(",") if "=" in pair)
    asked = {"runtime": int(limit)} if limit.isdigit() else {}
    if "cpu" in given_of:
        asked |= {"threads": int(given_of["cpu"]), "gpu": int(given_of.get("gres/gpu", 0))}
    if "mem" in given_of:
        asked["mem_mb"] = round(_megabytes(given_of["mem"]) / int(given_of.get("node", 1)))
    return asked


def table(found: Sequence[Use]) -> list[str]:
    """Return the lines of the table."""
    rows: list[tuple[str, ...]] = [
        ("job", "GPUs", "threads", "used", "minutes", "used", "MB", "used", "from", "ask for")
    ]
    for use in found:
        asked = use.asked
        name = " ".join(use.artifact).strip()
        cpu, time, memory = f"{use.busy_threads:.1f}", f"{use.minutes:.1f}", f"{use.mem_mb:.0f}"
        figures = (asked["gpu"], asked["threads"], cpu, asked["runtime"], time, asked["mem_mb"], memory)
        rows.append((name, *map(str, figures), use.measured_by, use.advice()))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = {0, 8, 9}  # words; figures stand to the right
    return [
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def main(arguments: Sequence[str]) -> int:
    """Print the table of one recipe; return 0, 1 for a bad recipe or record, 2 if nothing was built yet."""
    parser = argparse.ArgumentParser(prog="python -m scripts.report efficiency", description=__doc__)
    parser.add_argument("recipe", type=Path, nargs="+", help="recipe file, and overlays as in the run")
    args = parser.parse_args(arguments)
    try:
        graph = Graph(load_recipe(args.recipe, ROOT))
        found = uses(graph, Path("results") / graph.recipe.name)
    except (RecipeError, ArtifactError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if not found:
        print(f"results/{graph.recipe.name}: nothing was built yet", file=sys.stderr)
        return 2
    print("\n".join(table(found)))
    print("\nThe advice goes into set-resources of the profile (profiles/README.md).")
    return 0


def _megabytes(text: str) -> float:
    """Return sacct's `515M` or `12.5G` in MB (of 1,048,576 bytes); empty is 0."""
    if not text:
        return 0.0
    return float(text[:-1]) * _UNITS[text[-1]] if text[-1] in _UNITS else float(text) / 1024**2
