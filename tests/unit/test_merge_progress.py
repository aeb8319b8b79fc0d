"""The progress of a merge: share, GB/s and remaining time, on a terminal and in a log."""

import sys
from collections.abc import Callable

import pytest

from scripts.merge import progress
from scripts.merge.progress import Progress

GB = 10**9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands until it is moved."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def test_a_log_gets_a_line_each_ten_seconds(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    bar = Progress("merge m", 26 * GB)
    for _ in range(12):
        clock(1.0)
        bar.advance(GB // 2)
    assert capsys.readouterr().err == ("merge m [###                 ]  19% 5.00 of 26.00 GB, 0.50 GB/s, 42 s left\n")


def test_what_an_earlier_attempt_wrote_counts_for_the_share_but_not_for_the_speed(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = Progress("merge m", 4 * GB)
    bar.skip(2 * GB)
    clock(1.0)
    bar.advance(GB)
    clock(1.0)
    bar.advance(GB)
    halfway, end = capsys.readouterr().err.split("\r")[1:]
    assert halfway == "merge m [###############     ]  75% 3.00 of 4.00 GB, 1.00 GB/s, 1 s left"
    assert end == "merge m [####################] 100% 4.00 of 4.00 GB, 1.00 GB/s, 0 s left\n"
