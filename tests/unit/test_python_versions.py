"""What differs between Python's versions must not show in what is hashed."""

import builtins
import math
import random
from collections.abc import Iterable
from typing import Any

import pytest

from scripts.benchmark.replies import mean_and_error
from scripts.report.charts import thin_out
from scripts.report.facts import _mean

PLAIN_SUM = builtins.sum


def left_to_right(values: Iterable[Any], start: Any = 0) -> Any:
    """As Python's `sum` until 3.11."""
    total = start
    for value in values:
        total = total + value
    return total


def compensated(values: Iterable[Any], start: Any = 0) -> Any:
    """As Python's `sum` from 3.12 on, nearly: it carries the lost digits of floats along."""
    found = list(values)
    floats = bool(found) and all(isinstance(value, float | int) for value in found)
    return (
        math.fsum([*found, start]) if floats and any(isinstance(v, float) for v in found) else PLAIN_SUM(found, start)
    )


def test_no_figure_depends_on_how_python_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = random.Random(4)
    lists = [[stream.random() for _ in range(97)] for _ in range(40)]

    def figures() -> list[object]:
        means = [(mean_and_error(values), _mean(values)) for values in lists]
        return [means, [thin_out([(float(i), v) for i, v in enumerate(values)], 10) for values in lists]]

    found = []
    for way in (left_to_right, compensated):
        monkeypatch.setattr(builtins, "sum", way)
        assert [sum(values) for values in lists] == [way(values) for values in lists]
        found.append(figures())
    assert found[0] == found[1]
    # The two ways do differ on these lists, so that the test could fail.
    assert [left_to_right(values) for values in lists] != [compensated(values) for values in lists]
