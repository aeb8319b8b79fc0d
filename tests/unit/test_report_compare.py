"""Two results side by side: which models belong together, what differs, and how sure that is."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.artifact.digest import ArtifactError
from scripts.report.payloads import Payloads
from scripts.report.sidebyside import Table, benchmarks, main, tables
from scripts.report.sides import Side, pair_models, read_side
from scripts.report.volatile import write
from tests.unit.report_fixtures import Tree, make_results, train, whole_spec, whole_tree
from tests.unit.test_report_benchmarks import grouped


def with_scores(tree: Tree, better: int) -> Tree:
    """Give every model 60 items of `next-line`: from the first, 30 + `better` right ones."""
    for name, files in tree.items():
        if name.endswith("/choices"):
            content = json.loads(files["results.json"])
            task = content["tasks"]["next-line"]
            task["metrics"]["acc"]["value"], task["correct"] = (30 + better) / 60, 30 + better
            content["tasks"] = {"next-line": task}
            files["results.json"] = json.dumps(content)
    return tree


def add_samples(results: Path, better: int) -> None:
    """Write the samples that belong to `with_scores`."""
    scores = [[1.0]] * (30 + better) + [[0.0]] * (30 - better)
    for folder in (results / "benchmark").glob("*/choices"):
        table = pa.table({"task": ["next-line"] * 60, "item": list(range(60)), "scores": scores})
        pq.write_table(table, folder / "samples.parquet")


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs: B has another learning rate, other losses, and answers 12 more items."""
    made = []
    for letter, better in (("a", 0), ("b", 12)):
        tree = with_scores(whole_tree(), better)
        if letter == "b":
            files = train("tales-model", "base", steps=64)
            summary = json.loads(files["train.json"]) | {"settings": {"optimizer": {"learning_rate": 0.5}}}
            tree["train/tales-model"] = {**files, "train.json": json.dumps(summary)}
        made.append(make_results(tmp_path_factory.mktemp(letter), tree, whole_spec(title=f"Evening {letter}")))
        add_samples(made[-1], better)
    return made[0], made[1]


def by_title(made: list[Table]) -> dict[str, list[list[str]]]:
    """Return {title: rows}."""
    return {table.title: table.rows for table in made}


def test_what_differs_is_shown_and_nothing_else(sides: tuple[Path, Path]) -> None:
    a, b = map(read_side, sides)
    assert (a.note, b.note) == ("", "")
    found = by_title(tables(a, b, pair_models(a, b)))
    assert [row[0] for row in found["Artifacts that differ"] if "benchmark" not in row[0]] == ["train/tales-model"]
    assert found["Training settings that differ"] == [["tales-model", "optimizer.learning_rate", "None", "0.5"]]
    assert ["tales-model", "steps", "96", "64", "-32"] in found["Training"]
    assert "Mixtures" not in found and "Merge ratios that differ" not in found
    assert found["Speed"][0] == ["tales-model: tokens/s", "9,123", "9,123", "1.00"]


def test_differences_carry_the_test_of_the_same_items(sides: tuple[Path, Path]) -> None:
    a, b = map(read_side, sides)
    table = next(t for t in tables(a, b, pair_models(a, b)) if t.title == "Benchmarks")
    assert table.rows[0] == ["base", "choices: next-line acc", "0.5000", "0.7000", "+20.00", "0.0005*", "McNemar"]
    assert "4 of 4" in table.note
    for side in (a, b):
        side.found.scores.clear()
    table = next(t for t in tables(a, b, pair_models(a, b)) if t.title == "Benchmarks")
    assert table.rows[0][-1] == "two samples" and 0.01 < float(table.rows[0][-2].rstrip("*")) < 0.05


def test_groups_are_tested_on_the_same_items_too() -> None:
    made = []
    for large, small in ((50, 5), (60, 9)):
        key, result, scores = grouped("m", large, small)
        row = {"model": "m", "suite": "s", "task": "both", "metric": "acc_weighted", "value": (large + small) / 110}
        rows = [{**row, "stderr": 0.05}, {**row, "metric": "acc", "value": (large + 10 * small) / 200, "stderr": 0.05}]
        facts = {"benchmarks": rows, "artifacts": []}
        made.append(Side(Path("r"), facts, Payloads(benchmarks={key: result}, scores={key: scores})))
    weighted, plain = benchmarks(made[0], made[1], [("m", "m")]).rows
    assert weighted[4:] == ["+12.73", "0.0001*", "McNemar"]
    assert plain[4] == "+25.00" and plain[-1] == "sign flip"


def test_only_rows_with_a_test_are_counted_and_no_p_value_reads_as_zero() -> None:
    def card(*values: tuple[float, float | None]) -> Side:
        row = {"model": "m", "suite": "s", "metric": "acc"}
        rows = [{**row, "task": f"t{i}", "value": v, "stderr": e} for i, (v, e) in enumerate(values)]
        return Side(Path("r"), {"benchmarks": rows, "artifacts": []})

    pairs = [("m", "m")]
    table = benchmarks(card((0.5, 0.01), (0.5, None)), card((0.9, 0.01), (0.49999, None)), pairs)
    assert [row[4:6] for row in table.rows] == [["+40.00", "<0.0001*"], ["0.00", "-"]]
    assert table.note == "* p < 0.05: 1 of 1 tests; about 0.1 would be so by luck"
    assert benchmarks(card((0.5, None)), card((0.5, None)), pairs).note.startswith("no tests")


def test_a_run_equals_itself(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sides[0]), str(sides[0])]) == 0
    said = capsys.readouterr().out
    assert "artifacts have the same bytes in both" in said and "settings that differ" not in said
    assert "* p < 0.05: 0 of 4" in said


def test_a_scorecard_alone_is_enough(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sides[0] / "report/scorecard.json"), str(sides[1])]) == 0
    said = capsys.readouterr().out
    assert "a scorecard alone: no curves" in said
    assert "two samples" in said and "McNemar" not in said


def side(*models: str, recipe: str = "r") -> Side:
    """A side of which only models are known."""
    artifacts = [{"artifact": name, "value": "0" * 64} for name in models]
    return Side(Path(recipe), {"artifacts": artifacts, "benchmarks": [{"model": "downloaded"}]})


def test_models_pair_by_name_then_by_order_of_their_kind() -> None:
    a = side("create/base", "train/small-1", "train/both", "merge/m7")
    b = side("train/big-1", "train/both", "train/big-2", "merge/m13")
    expected = [("downloaded", "downloaded"), ("both", "both"), ("small-1", "big-1"), ("m7", "m13")]
    assert pair_models(a, b) == expected
    assert pair_models(a, b, ["small-1=big-2", "base=big-1"])[:2] == [("small-1", "big-2"), ("base", "big-1")]
    with pytest.raises(ArtifactError, match=r"--pair both=bigg: b has no model 'bigg'; it has .*big-1"):
        pair_models(a, side("train/both", "train/big-1", recipe="b"), ["both=bigg"])


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "build the report first"), ("{", "not a scorecard"), ("{}", "not a scorecard"), ("[]", "not a scorecard")],
)
def test_what_is_no_result_is_one_clear_error(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "report").mkdir()
        (tmp_path / "report" / "scorecard.json").write_text(content)
    assert main([str(tmp_path), str(tmp_path)]) == 2
    said: Any = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1


def test_a_page_replaces_what_a_killed_writer_left(tmp_path: Path) -> None:
    (tmp_path / ".page.html.tmp.0123").write_text("half a pa")
    write(tmp_path / "page.html", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "whole"
