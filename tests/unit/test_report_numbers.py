"""Rounding that would hide something."""

import json
from pathlib import Path

import pytest

from scripts.report.formats import decimal, share, signed, size
from scripts.report.numbers import by_luck, fixed, p_value, percent
from scripts.report.terminal import _mixtures
from tests.unit.report_fixtures import mix
from tests.unit.test_report import made


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0"), (0.04, "<0.1"), (0.05, "0.1"), (99.94, "99.9"), (99.96, ">99.9"), (100.0, "100.0")],
)
def test_a_small_share_is_not_nothing_and_a_large_one_not_all(value: float, text: str) -> None:
    assert percent(value) == share(value) == text


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert (signed(-0.001), signed(0.001), signed(-0.01), signed(0.01)) == ("0.00", "0.00", "−0.01", "+0.01")
    assert (decimal(-0.00001), decimal(-0.5, 1), signed(0, 0), signed(-12, 0)) == ("0.0000", "−0.5", "0", "−12")
    assert fixed(-1234.5, 1, sign=True, thousands=True) == "-1,234.5"
    assert decimal(None) == signed(None) == share(None) == "–"


def test_sizes_change_unit_before_they_reach_a_thousand() -> None:
    sizes = {
        999: "999 B",
        1000: "1.0 kB",
        999_940: "999.9 kB",
        999_990: "1.0 MB",
        999_960_000: "1.0 GB",
        26e9: "26.0 GB",
    }
    assert {value: size(value) for value in sizes} == sizes


def test_tests_that_luck_explains() -> None:
    assert [by_luck(n, 0.05) for n in (0, 6, 90, 560)] == ["0.0", "0.3", "4.5", "28"]
    assert (p_value(0.00002), p_value(0.00016), p_value(1.0)) == ("<0.0001", "0.0002", "1.0000")


def test_a_tiny_source_shows_on_page_and_terminal(tmp_path: Path) -> None:
    content = json.loads(mix("evening")["mix.json"])
    content["sources"]["riddles"]["chars_train"] = 100
    tree = {"mix/evening": {"mix.json": json.dumps(content)}}
    page, facts = made(tmp_path / "page", tree)
    assert "<td>&lt;0.1</td>" in page
    assert _mixtures(facts).rows[3][4] == "<0.1"
