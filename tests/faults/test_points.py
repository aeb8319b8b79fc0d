"""A fixed draw of fault points over the tiny recipe; `make soak` tries hundreds of them, and the whole demo."""

from pathlib import Path

import pytest

from tests.faults.points import ACTIONS, Point, count_events, draw, faults_after, try_point
from tests.faults.shim import Shim, needs_gcc
from tests.pipeline.bench import Bench

SAMPLE = 5
SEED = 20230902


@needs_gcc()
@pytest.mark.slow
@pytest.mark.parametrize("number", range(SAMPLE))
def test_a_fault_then_one_command_gives_the_same_digests(built: Bench, tmp_path: Path, number: int) -> None:
    events = count_events(Shim(built.folder.parent, built.folder))
    point = draw(events, SAMPLE, SEED)[number]
    row = try_point(built, point, tmp_path / "point")
    assert row["ended"] == "same digests", row
    assert not str(row["happened"]).startswith("not reached"), row


def test_the_draw_is_fixed_and_goes_round() -> None:
    from collections import Counter

    events = Counter({"clean": 10, "mix": 3, "train": 400, "report": 0})
    points = draw(events, 30, SEED)
    assert points == draw(events, 30, SEED) != draw(events, 30, SEED + 1)
    assert Counter(p.stage for p in points) == {"clean": 10, "mix": 10, "train": 10}
    assert all({p.action for p in points[i : i + 5]} == set(ACTIONS) for i in range(0, 30, 5))
    assert all(1 <= p.at <= events[p.stage] for p in points)
    assert len({p.at for p in points if p.stage == "train"}) > 5


def test_the_judge_of_a_point_can_say_no(bench: Bench) -> None:
    """Else every row of the table would be worth nothing."""
    sums = bench.sums()
    assert faults_after(bench, sums) == []
    (bench.folder / "results/tiny/clean/.demo-pippa.tmp.0123").mkdir()
    assert any("left behind" in text for text in faults_after(bench, sums))
    path = bench.folder / "results/tiny/mix/chats/mix.json"
    path.chmod(0o644)
    path.write_text("{}")
    assert any("mix.json" in text for text in faults_after(bench, sums))
    assert Point("mix", 1, "kill all").match == "/mix/"
