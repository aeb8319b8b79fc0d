"""Rank correlations between benchmarks and role-play measures, and their place in the report."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.benchmark.replies import Dialogue, Reply, measure
from scripts.recipe.ranks import kendall, ranks, spearman
from scripts.report.correlations import rank_correlations
from scripts.report.directions import arrow, direction
from scripts.report.page import _cell, _matrix
from scripts.report.payloads import Benchmark, Group, Metric
from tests.unit.report_fixtures import whole_spec, whole_tree
from tests.unit.test_report import made


def figures(model: str, accuracy: float, bits: float, words: float) -> list[Benchmark]:
    def task(form: str, metrics: dict[str, float]) -> dict[str, Any]:
        return {"format": form, "items": 9, "metrics": {name: {"value": v} for name, v in metrics.items()}}

    bits_task = task("bits_per_byte", {"bits_per_byte": bits, "bits_per_byte/tales": bits})
    kept = {"bits": bits_task, "replies": task("generation", {"words": words})}
    quiz = {"quiz": task("multiple_choice", {"acc": accuracy, "acc_norm": 0.5})}
    tables = [("choices", quiz), ("kept", kept)]
    return [Benchmark.model_validate({"model": model, "suite": suite, "tasks": tasks}) for suite, tasks in tables]


def test_pairs_of_benchmarks_and_measures() -> None:
    scores = {"a": (0.2, 3.0, 5.0), "b": (0.3, 2.0, 5.0), "c": (0.4, 2.5, 5.0)}
    found = {f"{m}/{b.suite}": b for m, values in scores.items() for b in figures(m, *values)}
    first, second = rank_correlations(found)
    assert (first["benchmark"], first["measure"]) == ("choices: quiz, acc", "kept: bits, bits_per_byte")
    assert first["models"] == 3
    # Bits per byte fall as accuracy rises: turned, so that both prefer the same models.
    assert first["spearman"] == pytest.approx(0.5) and first["kendall"] == pytest.approx(1 / 3)
    assert (first["direction"], second["direction"]) == (-1, 0)
    assert second["spearman"] is None and second["kendall"] is None  # all replies are equally long
    assert rank_correlations({k: v for k, v in found.items() if not k.startswith("a")}) == []  # two models say nothing


def test_a_group_is_one_benchmark() -> None:
    found: dict[str, Benchmark] = {}
    for i, model in enumerate("abc"):
        quiz, kept = figures(model, 0.2 + i, 3.0 - i, 5.0)
        members = {f"mmlu_{part}": quiz.tasks["quiz"] for part in ("law", "virology")}
        group = Group(tasks=list(members), items=18, metrics={"acc": Metric(value=0.9 - i)})
        more = {"tasks": {**quiz.tasks, **members}, "groups": {"mmlu": group}}
        found |= {f"{model}/choices": quiz.model_copy(update=more), f"{model}/kept": kept}
    rows = [row for row in rank_correlations(found) if row["measure"] == "kept: bits, bits_per_byte"]
    expected = {"choices: quiz, acc": 1.0, "choices: mmlu, acc": -1.0}
    assert {row["benchmark"]: row["spearman"] for row in rows} == pytest.approx(expected)


def test_cells_say_why_they_are_empty_and_describing_measures_get_no_colour() -> None:
    row = {"benchmark": "b", "measure": "m", "models": 3, "direction": -1, "spearman": 0.9, "kendall": 0.8}
    rows = [
        row,
        {**row, "benchmark": "c", "models": 2, "spearman": None, "kendall": None},
        {**row, "benchmark": "d", "spearman": None, "kendall": None},
        {**row, "benchmark": "e", "models": 4, "spearman": -0.9},
    ]
    found = _matrix(rows)
    ((_, way, cells),) = found["lines"]
    assert (way, found["models"]) == (-1, [3, 4])
    assert [(c["missing"], c["colour"]) for c in cells] == [
        ("", "plus"),
        ("n = 2", ""),
        ("all alike", ""),
        ("", "minus"),
    ]
    assert _cell({**row, "direction": 0})["colour"] == ""


def test_every_measure_of_replies_has_its_way() -> None:
    found = measure([Dialogue("", (Reply("a b", "eos"), Reply("a", "eos")))])
    ways = {metric: direction(metric) for metric in found}
    assert {metric for metric, way in ways.items() if way > 0} == {"distinct_1", "distinct_2", "distinct_3"}
    assert {metric for metric, way in ways.items() if way == 0} == {"words/turn_1", "words/turn_2"}
    assert [direction(m) for m in ("bits_per_byte/tales", "refusal_margin", "acc", "acc_weighted")] == [-1, -1, 1, 1]
    assert [arrow(m) for m in ("extracted", "mc2", "words/turn_1", "loglikelihood")] == ["↓", "↑", "", ""]


def test_ties_share_their_rank() -> None:
    assert ranks([3.0, 1.0, 3.0]) == [2.5, 1.0, 2.5]
    assert spearman([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(0.9486832980505138)
    assert kendall([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(5 / 30**0.5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=8))
def test_correlations_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy isn't installed: no peer to compare with")
    a, b = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert spearman(a, b) is None and kendall(a, b) is None
        return
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)


def test_the_page_shows_measures_apart_from_accuracies(tmp_path: Path) -> None:
    tree = whole_tree()
    for name in [name for name in tree if name.endswith("/held-out")]:
        content = json.loads(tree[name]["results.json"])
        metrics = {"words/turn_1": {"value": 17.25, "stderr": 1.5, "chance": None}}
        content["tasks"]["replies"] = {"format": "generation", "items": 5, "metrics": metrics}
        tree[name]["results.json"] = json.dumps(content)
    page, facts = made(tmp_path, tree, whole_spec())
    assert "Do benchmarks follow role-play?" in page and "17.250" in page
    assert {row["metric"] for row in facts["role_play"]} == {"words/turn_1"}
    assert "words/turn_1" not in {row["metric"] for row in facts["benchmarks"]}
    assert {row["models"] for row in facts["rank_correlations"]} == {4}
