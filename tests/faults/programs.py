"""The program of one artifact, run again as Snakemake ran it, without Snakemake."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.artifact.digest import FACTS
from scripts.artifact.record import read_record
from scripts.recipe.base import STAGES
from tests.pipeline.bench import Bench

in_soak = pytest.mark.skipif(not os.environ.get("ATELIER_SOAK"), reason="takes long: make soak")
"""Marks cases that `make test` leaves to `make soak`: it has five minutes for all of tests/faults."""


def artifacts(bench: Bench) -> list[Path]:
    """Return the folders of a finished run's artifacts in order of the flow."""
    root = bench.folder / "results"
    folders = [root / name for name in bench.sums()]
    return sorted(folders, key=lambda folder: (STAGES.index(folder.relative_to(root).parts[1]), folder))


def one_of_each_stage(bench: Bench) -> dict[str, Path]:
    """Return one artifact a stage."""
    return {folder.relative_to(bench.folder / "results").parts[1]: folder for folder in artifacts(bench)}


def command_of(folder: Path) -> list[str]:
    """Return the command that made an artifact; it runs in the bench's folder."""
    argv = read_record(folder / FACTS)["argv"]
    stage = next(part for part in folder.parts[::-1] if part in STAGES)
    return [sys.executable, "-m", f"scripts.{stage}", *argv]


def environment(bench: Bench, **extra: str) -> dict[str, str]:
    """Return the environment that the Snakefile gives to a program."""
    python = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(bench.folder)}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return bench.environment(**python, **offline, **extra)


def run(bench: Bench, command: list[str], **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the command of an artifact to its end."""
    return subprocess.run(
        command,
        cwd=bench.folder,
        env=environment(bench, **extra),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def told(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a program said, all of it."""
    return done.stdout + done.stderr
