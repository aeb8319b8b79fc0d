"""The demo gives the bytes of locks/demo.lock, and ends in a scorecard that fits a screen."""

from pathlib import Path

import pytest

from scripts.artifact.lock import entries_of, read_lock
from tests.conftest import ROOT
from tests.pipeline.bench import Bench
from tests.pipeline.conftest import logs


@pytest.mark.slow
def test_the_demo_equals_its_lock(tmp_path: Path) -> None:
    bench = Bench.fresh(tmp_path / "demo", "config/demo.yaml")
    run = bench.run()
    assert run.code == 0, run.output + logs(bench)
    locked = {(e.stage, e.name): e.value for e in read_lock(ROOT / "locks" / "demo.lock")}
    built = {(e.stage, e.name): e.value for e in entries_of(bench.folder / "results" / "demo")}
    assert built.keys() == locked.keys()
    assert [name for name in locked if built[name] != locked[name]] == [], "if this is meant: make demo lock"
    card = bench.python("-m", "scripts.report", "scorecard", "results/demo")
    assert card.returncode == 0, card.stdout + card.stderr
    assert "25 built, 25 verified, 0 with faults" in card.stdout
    assert "25 of 25" in card.stdout, "the scorecard compares with the lock"
    assert len(card.stdout.splitlines()) <= 60
    shown = (ROOT / "README.md").read_text().split("ends with this screen")[1].split("```")[1]
    printed = card.stdout.splitlines()
    stale = [line for line in shown.splitlines() if line and line != "..." and line not in printed]
    assert stale == [], "the README shows another scorecard: run `make demo` and paste it"
    page = (bench.folder / "results/demo/report/index.html").read_text()
    assert "tiny-mythalion" in page
    assert bench.run().nothing
