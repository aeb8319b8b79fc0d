"""Benchmark rows of the report: beside published figures, between models, and in the forms of others."""

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from scripts.artifact.stage import StageError
from scripts.recipe.base import keyed_hash
from scripts.recipe.judge import z_of_count
from scripts.recipe.published import Published
from scripts.recipe.report import ReportSpec, SuiteFacts, TaskSource
from scripts.report.benchmarks import benchmark_pairs, benchmark_rows
from scripts.report.build import build
from scripts.report.compare import compare, mcnemar, sign_flip
from scripts.report.export import main
from scripts.report.payloads import Benchmark, Payloads, Scores
from tests.unit.report_fixtures import finish, make_job, whole_spec

PUBLISHED = {
    "model": "tuned",
    "title": "Tuned, as printed",
    "source": "A letter of 1 May",
    "tables": {
        "letters": {
            "title": "Letters",
            "protocol": "old",
            "tasks": {
                "fruit": {
                    "items": 40,
                    "shots": 0,
                    "printed_as": "fruit_bowl",
                    "metrics": {"acc": {"value": 0.5, "stderr": 0.0801, "correct": 20}},
                },
                "soup": {"items": 41, "shots": 0, "metrics": {"acc": {"value": 0.3, "stderr": 0.0725, "correct": 12}}},
            },
        }
    },
}
SCORES = {
    "base": {"fruit": [1.0] * 16 + [0.0] * 24, "soup": [0.0, 1.0] * 20},
    "tuned": {"fruit": [0.0] + [1.0] * 29 + [0.0] * 10, "soup": [0.0, 1.0] * 20},
}


def result(model: str) -> dict[str, Any]:
    def metric(scores: list[float]) -> dict[str, Any]:
        value = sum(scores) / len(scores)
        return {"value": value, "stderr": math.sqrt(value * (1 - value) / (len(scores) - 1)), "chance": 0.25}

    tasks = {
        name: {
            "format": "arc",
            "items": len(scores),
            "prompts_sha256": "ab" * 32,
            "metrics": {"acc": metric(scores)},
            "chance_variance": 0.1875,
            "correct": int(sum(scores)),
            "shots": 2,
            "bos": False,
            "upstream_bug": "soup <b>is</b> stew" if name == "soup" else "",
            "note": "",
        }
        for name, scores in SCORES[model].items()
    }
    group = {"tasks": ["soup"], "items": 40, "metrics": {"acc": {"value": 0.5, "stderr": 0.08, "chance": 0.25}}}
    return {
        "model": model,
        "suite": "letters",
        "protocol": "old",
        "digests": {"weights": "cd" * 32, "tokenizer": "ef" * 32, "data": {"bowl": "01" * 32}},
        "tasks": tasks,
        "groups": {"kitchen": group} if model == "base" else {},
    }


@pytest.fixture
def facts(tmp_path: Path) -> dict[str, Any]:
    suites = {
        "letters": SuiteFacts(
            title="Letters & soup",
            protocol="old",
            published_table="letters",
            data={"fruit": TaskSource(dataset="somebody/fruit", revision="a" * 40)},
        )
    }
    spec: ReportSpec = whole_spec(
        models={"base": ["create"], "tuned": ["train", "base"]},
        suites=suites,
        published=[Published.model_validate(PUBLISHED)],
        lineage={},
    )
    tree = {f"benchmark/{m}/letters": {"results.json": json.dumps(result(m))} for m in SCORES}
    job = make_job(tmp_path, tree, spec)
    for model, tasks in SCORES.items():
        rows = [{"task": t, "scores": [s]} for t, scores in tasks.items() for s in scores]
        folder = tmp_path / "results" / "benchmark" / model / "letters"
        pq.write_table(pa.Table.from_pylist(rows), folder / "samples.parquet")
        finish(folder, f"benchmark/{model}/letters")
    build(job)
    report = tmp_path / "results" / "report"
    report.mkdir()
    for file in job.out.iterdir():
        (report / file.name).write_bytes(file.read_bytes())
    content: dict[str, Any] = json.loads((report / "scorecard.json").read_text())
    return {**content, "page": (report / "index.html").read_text(), "root": str(tmp_path)}


def row(facts: dict[str, Any], model: str, task: str) -> dict[str, Any]:
    (found,) = [r for r in facts["benchmarks"] if (r["model"], r["task"]) == (model, task)]
    return dict(found)


def test_published_figures_stand_beside_ours(facts: dict[str, Any]) -> None:
    ours = row(facts, "tuned", "fruit")
    error = math.sqrt(29 / 40 * 11 / 40 / 39)
    printed = ours["published"]
    assert printed["difference_points"] == pytest.approx(100 * (29 / 40 - 0.5))
    assert printed["difference_stderr"] == pytest.approx((29 / 40 - 0.5) / math.hypot(error, 0.0801))
    assert printed["arithmetic"] is True and printed["same_items"] is True and printed["at_chance"] is False
    assert printed["z"] == pytest.approx((20 - 10) / math.sqrt(40 * 0.1875))
    wrong = row(facts, "tuned", "soup")["published"]
    assert wrong["arithmetic"] is False and wrong["same_items"] is False and wrong["z"] is None
    assert row(facts, "base", "fruit")["published"] is None


def test_a_printed_row_of_one_item_is_impossible_not_a_crash(tmp_path: Path) -> None:
    content = json.loads(json.dumps(PUBLISHED))
    content["tables"]["letters"]["tasks"]["fruit"]["items"] = 1
    suites = {"letters": SuiteFacts(title="Letters", protocol="old", published_table="letters")}
    spec = whole_spec(models={}, suites=suites, published=[Published.model_validate(content)], lineage={})
    found = Payloads(benchmarks={"tuned/letters": Benchmark.model_validate(result("tuned"))})
    (printed,) = [r["published"] for r in benchmark_rows(spec, found) if r["task"] == "fruit"]
    assert printed["arithmetic"] is False and printed["same_items"] is False


def test_a_group_is_one_row_and_its_members_are_listed(facts: dict[str, Any]) -> None:
    assert [r["task"] for r in facts["benchmarks"] if r["model"] == "base"] == ["fruit", "kitchen"]
    (group,) = facts["benchmark_groups"]
    assert group["tasks"] == [{"task": "soup", "items": 40, "value": 0.5}]


def test_models_are_compared_on_the_same_items(facts: dict[str, Any]) -> None:
    fruit, soup = facts["benchmark_pairs"]
    assert (fruit["first"], fruit["second"], fruit["items"], fruit["test"]) == ("base", "tuned", 40, "McNemar")
    assert (fruit["better"], fruit["worse"]) == (14, 1) and fruit["p_value"] == pytest.approx(2 * 16 / 2**15)
    assert fruit["difference_points"] == pytest.approx(100 * 13 / 40)
    assert soup["p_value"] == 1.0 and soup["difference_points"] == 0.0


def test_the_page_shows_badges_and_escapes(facts: dict[str, Any]) -> None:
    page = facts["page"]
    for text in ("Letters &amp; soup", "arithmetic fits", "impossible k/N", "other N: 41", "known bug", "McNemar"):
        assert text in page, text
    assert "soup &lt;b&gt;is" in page and "<b>is" not in page and "<script" not in page
    assert "cdcdcdcdcdcd" in page and "efefefefefef" in page and "2 shots." in page and "Without BOS" in page


def test_exports(facts: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, out = Path(facts["root"]) / "results", tmp_path / "exported"
    assert main([str(results), str(out)]) == 0
    table = (out / "tuned" / "benchmarks.md").read_text()
    assert "| fruit\\_bowl | old | acc | 0.7250 | ± | 0.0715 |" in table
    (index,) = yaml.safe_load((out / "tuned" / "model-index.yaml").read_text())["model-index"]
    fruit = index["results"][0]
    assert index["name"] == "tuned" and fruit["dataset"]["type"] == "somebody/fruit"
    assert fruit["metrics"][0]["value"] == 0.725 and "0.725" not in table.replace("0.7250", "")
    card = huggingface_hub.ModelCardData(**yaml.safe_load((out / "tuned" / "model-index.yaml").read_text()))
    assert card.eval_results is not None and card.eval_results[0].dataset_revision == "a" * 40
    entries = yaml.safe_load((out / "tuned" / ".eval_results" / "letters.yaml").read_text())
    (parsed,) = huggingface_hub.parse_eval_result_entries(entries)
    assert (parsed.dataset_id, parsed.task_id, parsed.value) == ("somebody/fruit", "fruit", 0.725)
    assert parsed.dataset_revision == "a" * 40 and "without BOS" in str(parsed.notes)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert main([str(results), str(out)]) == 0 and before == {p: p.read_bytes() for p in before}
    assert main([str(tmp_path), str(out)]) == 2 and "build the report first" in capsys.readouterr().err


def test_unreadable_samples_are_one_error(tmp_path: Path) -> None:
    tree = {"benchmark/base/letters": {"results.json": json.dumps(result("base")), "samples.parquet": "no parquet"}}
    with pytest.raises(StageError, match=r"samples.parquet: cannot be read"):
        build(make_job(tmp_path, tree, whole_spec(models={"base": ["create"]}, lineage={})))


def test_mcnemar_is_the_exact_binomial() -> None:
    for better, worse in ((0, 0), (5, 0), (3, 9), (40, 60)):
        total = better + worse
        tail = sum(math.comb(total, k) for k in range(min(better, worse) + 1)) / 2**total
        assert mcnemar(better, worse) == pytest.approx(min(1.0, 2 * tail))


def test_permutation_test_of_shares_finds_clear_differences_only_and_repeats() -> None:
    first = [(7 * i % 11) / 11 for i in range(60)]
    clear = compare(first, [min(1.0, value + 0.1) for value in first], "s", "t")
    assert clear.test == "sign flip" and clear.p_value == 1 / 5000 and clear.lower == 0
    mixed = compare(first, [value + (0.05 if i % 2 else -0.05) for i, value in enumerate(first)], "s", "t")
    assert mixed.p_value > 0.5
    assert mixed == compare(first, [v + (0.05 if i % 2 else -0.05) for i, v in enumerate(first)], "s", "t")


@pytest.mark.parametrize("items", [1, 2, 5, 12, 50])
def test_equal_models_rarely_differ_however_few_the_items(items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Measured with 600 pairs of equal models: 0 %, 0 %, 0 %, 4 % and 5 %; a bootstrap's were 100, 46, 14, 10 and 9 %.
    monkeypatch.setattr("scripts.report.compare.DRAWS", 499)
    runs = 600

    def scores(model: str, run: int) -> list[float]:
        return [keyed_hash("equal models", model, run, items, item) / 2**64 for item in range(items)]

    found = sum(compare(scores("a", run), scores("b", run), items, run).p_value < 0.05 for run in range(runs))
    assert found / runs <= 0.07
    assert found / runs >= (0.03 if items >= 12 else 0.0)


def test_few_items_are_tested_by_all_patterns_of_signs() -> None:
    assert sign_flip([0.5], "k") == sign_flip([], "k") == sign_flip([0.0] * 20, "k") == 1.0
    assert sign_flip([0.5, 0.25, 0.125], "k") == 2 / 8
    assert sign_flip([0.1, 0.2, -0.3], "k") == 1.0  # floats: 0.1 + 0.2 is not 0.3, the sum is no less zero
    differences = [0.9, -0.2, 0.4, 0.35, 0.0, 0.1, -0.05, 0.6]
    totals = [
        abs(math.fsum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    expected = sum(total >= math.fsum(differences) - 1e-9 for total in totals) / len(totals)
    assert sign_flip(differences, "k") == sign_flip([-d for d in differences], "other") == expected


def grouped(model: str, large: float, small: float, digest: str = "ab") -> tuple[str, Benchmark, Scores]:
    """A group of a task of 100 items and one of 10, with so many right of each."""
    right = {"big": (100, large), "small": (10, small)}
    scores = {(task, "acc"): [float(i < hits) for i in range(count)] for task, (count, hits) in right.items()}
    metrics = {"acc": {"value": 0.5, "stderr": 0.01}, "acc_weighted": {"value": 0.5, "stderr": 0.01}}
    tasks = {
        task: {"format": "mmlu", "items": count, "prompts_sha256": digest * 32, "metrics": {"acc": {"value": 0.5}}}
        for task, (count, _) in right.items()
    }
    groups = {"both": {"tasks": ["big", "small"], "items": 110, "metrics": metrics}}
    content = {"model": model, "suite": "s", "tasks": tasks, "groups": groups}
    return f"{model}/s", Benchmark.model_validate(content), scores


def pairs_of(*models: tuple[str, Benchmark, Scores]) -> list[dict[str, Any]]:
    found = Payloads(benchmarks={k: b for k, b, _ in models}, scores={k: s for k, _, s in models})
    return benchmark_pairs(whole_spec(models={"a": ["create"], "b": ["train", "a"]}), found)


def test_a_groups_test_is_of_the_metric_it_is_shown_under() -> None:
    plain, weighted = pairs_of(grouped("a", 50, 5), grouped("b", 52, 0))
    assert (plain["task"], plain["metric"], plain["test"]) == ("both", "acc", "sign flip")
    assert (plain["direction"], plain["better"], plain["worse"]) == (1, 2, 5)
    assert plain["difference_points"] == pytest.approx(100 * (0.02 - 0.5) / 2) and plain["share"] is True
    # Two items of weight 0.55 and five of 5.5: as far from zero are the patterns in which the five agree.
    assert plain["p_value"] == 8 / 128
    assert (weighted["metric"], weighted["test"], weighted["items"]) == ("acc_weighted", "McNemar", 110)
    assert weighted["difference_points"] == pytest.approx(100 * -3 / 110)
    assert weighted["p_value"] == pytest.approx(mcnemar(2, 5))


def test_a_smaller_refusal_margin_is_better() -> None:
    def model(name: str, margin: float) -> tuple[str, Benchmark, Scores]:
        values = [margin + i / 100 for i in range(8)]
        metrics = {"refusal_margin": {"value": margin, "stderr": 0.1}}
        task = {"format": "refusal", "items": 8, "prompts_sha256": "ab" * 32, "metrics": metrics}
        content = {"model": name, "suite": "s", "tasks": {"refusal": task}}
        return f"{name}/s", Benchmark.model_validate(content), {("refusal", "refusal_margin"): values}

    (row,) = pairs_of(model("a", -2.0), model("b", -0.5))  # it would refuse more
    assert (row["better"], row["worse"], row["direction"]) == (0, 8, -1) and row["difference_points"] > 0


def test_a_group_of_other_items_is_not_tested() -> None:
    assert pairs_of(grouped("a", 50, 5), grouped("b", 52, 0, "cd")) == []
    short = grouped("b", 52, 0)
    short[2].pop(("small", "acc"))
    assert pairs_of(grouped("a", 50, 5), short) == []


def test_distance_from_guessing_is_exact_with_the_items_own_variance() -> None:
    # 2 items of 2 choices and 2 of 4: variance 2 * 1/4 + 2 * 3/16
    assert z_of_count(3, 4, 0.375, 0.21875) == pytest.approx(1.5 / math.sqrt(0.875))
    assert z_of_count(66, 254, 0.2) == pytest.approx(2.38, abs=0.005)  # the announcement's aqua_rat, acc_norm
