"""Clocks that are years off, and that jump between two runs."""

import os
from pathlib import Path

import pytest

from tests.faults.programs import in_soak
from tests.faults.shim import SECONDS_A_YEAR, needs_gcc, other_time
from tests.pipeline.bench import Bench
from tests.pipeline.conftest import logs

pytestmark = [needs_gcc(), in_soak]


@pytest.mark.slow
def test_forward_and_back_by_years_gives_the_same_digests(bench: Bench, tmp_path: Path) -> None:
    """mix and train are made in 2046, merge, benchmark and report in 1990, beside artifacts of today."""
    sums = bench.sums()
    for stage in ("mix", "train"):
        bench.append(f"scripts/{stage}/__main__.py", "\nHARMLESS = 1\n")
    run = bench.run(**other_time(tmp_path / "world", 20))
    assert run.code == 0, run.output + logs(bench)
    assert run.jobs == ["mix chats", "train sapling"]
    for stage in ("merge", "report"):
        bench.append(f"scripts/{stage}/__main__.py", "\nHARMLESS = 1\n")
    run = bench.run(**other_time(tmp_path / "world", -36))
    assert run.code == 0, run.output + logs(bench)
    assert run.jobs == ["merge grafted", "report tiny"]
    assert bench.sums() == sums
    assert bench.run().nothing
    assert bench.python("-m", "scripts.artifact", "verify", "results/tiny").returncode == 0


@pytest.mark.parametrize("years", [20, -36])
def test_files_from_the_future_and_the_past_do_nothing(bench: Bench, years: int) -> None:
    """As after unpacking, restoring a backup, or a clock that was wrong while a part was built."""
    root = bench.folder / "results"
    for number, path in enumerate(sorted(p for p in root.rglob("*") if p.is_file())):
        if number % 2:
            time = path.stat().st_mtime + years * SECONDS_A_YEAR
            os.utime(path, (time, time))
    assert bench.run().nothing
    for path in (bench.folder / "config").rglob("*"):
        time = path.stat().st_mtime + years * SECONDS_A_YEAR
        os.utime(path, (time, time))
    assert bench.run().nothing
