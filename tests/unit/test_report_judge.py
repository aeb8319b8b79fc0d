"""Intervals and distances from chance, against published and exact values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.recipe.judge import judge, whole_count, wilson


def test_wilson_interval_of_known_cases() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81/263 and 0/20 by the score method.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@given(st.integers(1, 5000), st.data())
def test_wilson_interval_holds_the_share(items: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, items))
    low, high = wilson(correct, items)
    assert 0 <= low <= correct / items <= high <= 1
    mirrored = wilson(items - correct, items)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)


@given(st.integers(1, 100_000), st.data())
def test_count_is_found_from_a_rounded_value(items: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, items))
    assert whole_count(round(correct / items, 9), items) == correct


@pytest.mark.parametrize(("value", "items"), [(0.4351, 817), (1.5, 10), (0.5, 0), (-0.1, 10)])
def test_no_count_where_there_is_none(value: float, items: int) -> None:
    assert whole_count(value, items) is None


def test_announced_figures_get_the_known_distances() -> None:
    # temporal_sequences 251/1000 and snarks 85/181 of the announcement: chance 1/4 and 1/2.
    assert judge(0.2510, 1000, 0.0137, 0.25, True).z == pytest.approx(0.07, abs=0.005)
    snarks = judge(85 / 181, 181, 0.0372, 0.5, True)
    assert snarks.z == pytest.approx(-0.82, abs=0.005)
    assert snarks.at_chance


def test_figure_that_is_no_count_uses_its_standard_error() -> None:
    judged = judge(0.4351, 817, 0.0143, 0.4, False)
    assert judged.correct is None
    assert judged.z == pytest.approx((0.4351 - 0.4) / 0.0143)
    assert (judged.low, judged.high) == pytest.approx((0.4351 - 1.96 * 0.0143, 0.4351 + 1.96 * 0.0143), abs=1e-5)


def test_nothing_is_claimed_without_an_error_or_a_chance() -> None:
    assert judge(0.5, 10, None, 0.5, False).z is None
    assert not judge(0.5, 10, None, 0.5, False).at_chance
    assert judge(0.5, 10, 0.0, 0.5, False).low is None
    assert judge(0.5, 10, None, None, True).z is None
    assert judge(1.0, 10, None, 1.0, True).z is None
    assert judge(0.5, 10, 0.1, 0.5, True, 0.0).z is None  # guesses that can't differ
    assert math.isclose(judge(0.6, 10, None, 0.5, True).z or 0, (6 - 5) / math.sqrt(2.5))
