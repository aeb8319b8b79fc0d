"""Mistyped targets: what Snakemake would answer with a traceback."""

from pathlib import Path

import pytest

from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from scripts.recipe.targets import target_problem
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph(load_recipe([ROOT / "tests" / "recipes" / "tiny.yaml"], ROOT))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "results/tiny/train/saplin/SHA256SUMS",
            "no model 'saplin' is trained by recipe tiny; known: sapling; did you mean \"sapling\"?",
        ),
        ("results/tiny/train/saplin", "no model 'saplin' is trained by recipe tiny"),
        ("results/tiny/train/sapling/", "is a folder; ask for results/tiny/train/sapling/SHA256SUMS"),
        ("results/tiny/benchmark/grafted/quik/SHA256SUMS", 'did you mean "grafted/quick"?'),
        ("results/tiny/blind/SHA256SUMS", "recipe tiny asks for no such blind"),
        ("results/tny/train/sapling/SHA256SUMS", "this run's recipe is tiny"),
    ],
)
def test_a_mistyped_target_is_told_in_one_line(graph: Graph, target: str, expected: str) -> None:
    found = target_problem(graph, ["--cores", "1", target])
    assert expected in found
    assert "\n" not in found


@pytest.mark.parametrize(
    "argument",
    [
        "results/tiny/train/sapling/SHA256SUMS",
        "results/tiny/benchmark/grafted/quick/SHA256SUMS",
        "results/tiny/train/sapling/config.json",
        "results/tiny/report/SHA256SUMS",
        "results/tiny/report/index.html",
        "results/tiny/report.html",
        "results/tiny/logs/train/x.log",
        "train",
        "results",
    ],
)
def test_what_may_be_right_is_left_to_snakemake(graph: Graph, argument: str) -> None:
    assert target_problem(graph, [argument]) == ""


def test_a_file_that_exists_is_no_typing_error(graph: Graph) -> None:
    other = Path("results/other/train/x/SHA256SUMS")
    other.parent.mkdir(parents=True)
    other.touch()
    assert target_problem(graph, [str(other)]) == ""
