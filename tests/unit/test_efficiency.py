"""Requested against used: the advice, the units of Slurm's accounting, jobs that Slurm doesn't know."""

from pathlib import Path

import pytest

from scripts.artifact.record import write_record
from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from scripts.report.efficiency import Account, Use, slurm_accounts, table, uses
from tests.conftest import ROOT

ASKED = {"threads": 8, "mem_mb": 8000, "runtime": 60, "gpu": 0}


def use(mem_mb: float = 4000, minutes: float = 20, busy: float = 6) -> Use:
    return Use(("train", "m"), ASKED, minutes, mem_mb, busy, "records")


@pytest.mark.parametrize(
    ("job", "advice"),
    [
        (use(), ""),
        (use(mem_mb=500), "mem_mb=1000"),
        (use(mem_mb=7900), "mem_mb=12000"),
        (use(minutes=58), "runtime=87"),
        (use(busy=1.1), "threads=1"),
        (use(mem_mb=100, busy=0.5), "mem_mb=1000 threads=1"),
    ],
)
def test_advice(job: Use, advice: str) -> None:
    assert job.advice() == advice


def fake_sacct(folder: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "sacct"
    program.write_text(f"#!/bin/sh\nprintf '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_accounting_takes_the_largest_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = "billing=8,cpu=8,gres/gpu:h100=4,gres/gpu=4,mem=8000M,node=2"
    job = rf"7|120||60|{given}\n7.batch|120|300M||cpu=4,mem=4000M\n7.0|100|1.5G||cpu=8\n"
    fake_sacct(tmp_path, rf"{job}8|3||UNLIMITED|\n", monkeypatch)
    asked = {"runtime": 60, "threads": 8, "gpu": 4, "mem_mb": 4000}
    assert slurm_accounts(["7", "8"]) == {"7": Account(120, 1536.0, asked), "8": Account(3, 0.0, {})}


def test_no_accounting_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_accounts(["7"]) == {}


def test_table_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph(load_recipe([ROOT / "tests/recipes/tiny.yaml"], ROOT))
    assert uses(graph, tmp_path) == []
    facts = {"cpu_seconds": 90.0, "peak_rss_bytes": 2_000_000_000, "children_peak_rss_bytes": 3_000_000_000}
    for name, job in (("mix/chats", ""), ("train/sapling", "7")):
        (tmp_path / name).mkdir(parents=True)
        write_record(tmp_path / name / "provenance.json", {**facts, "seconds": 60.0, "slurm_job_id": job})
    fake_sacct(tmp_path, r"7|150||30|cpu=4,gres/gpu=2,mem=6G,node=1\n7.0|150|4G||\n", monkeypatch)
    mix, train = uses(graph, tmp_path)
    assert (mix.artifact, mix.measured_by, mix.minutes, mix.mem_mb) == (("mix", "chats"), "records", 1.0, 3000.0)
    assert (train.artifact, train.measured_by, train.minutes, train.mem_mb) == (
        ("train", "sapling"),
        "slurm",
        2.5,
        4096,
    )
    assert train.asked == {"threads": 4, "mem_mb": 6144, "runtime": 30, "gpu": 2}, "Slurm's word, not the recipe's"
    lines = table([mix, train])
    assert len(lines) == 3 and "slurm" in lines[2] and lines[1].startswith("mix chats")
