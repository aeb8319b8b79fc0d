"""Benchmark results as others read them: figures, counts and remarks in tables, in cards, through the hub's library."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import yaml

from scripts.recipe.exports import eval_results, markdown, model_index
from scripts.recipe.footnotes import AT_CHANCE
from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from scripts.release.card import card
from scripts.release.results import benchmark_rows
from tests.conftest import ROOT
from tests.unit.test_release import spec_of

HOSTILE = "a | b\n# <script>x</script> `c` | d"


def row(suite: str, task: str, metric: str = "acc", value: float = 0.5, **more: Any) -> dict[str, Any]:
    """Return one row of a scorecard."""
    figures = {"metric": metric, "value": value, "stderr": 0.01, "chance": 0.25, "items": 100, "at_chance": False}
    words = {"protocol": f"{suite}-protocol", "note": "", "upstream_bug": "", "published": None}
    return {"model": "m", "suite": suite, "task": task, "shots": 0, "bos": False, **figures, **words, **more}


def shipped() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row for two metrics of every task of the suites of the 13B recipe, each of another value."""
    loaded = load_recipe([ROOT / "config/pygmalion-2-13b.yaml"], ROOT)
    release = Graph(loaded).jobs[("release", "pygmalion-2-13b")].spec
    suites = {name: facts.model_dump() for name, facts in release.suites.items()}  # type: ignore[attr-defined]
    names = [
        (suite, task, metric) for suite in suites for task in loaded.suites[suite].tasks for metric in ("acc", "n")
    ]
    return [row(*key, value=(index + 1) / 4096) for index, key in enumerate(names)], suites


def test_every_figure_keeps_its_task_through_the_hubs_library() -> None:
    rows, suites = shipped()
    text = "---\n" + yaml.safe_dump({"model-index": [model_index("m", rows, suites)]}) + "---\n"
    again = yaml.safe_load(huggingface_hub.ModelCard(text).data.to_yaml())["model-index"][0]["results"]
    found = {
        (*result["dataset"]["config"].split("/"), result["dataset"]["name"], metric["type"]): metric["value"]
        for result in again
        for metric in result["metrics"]
    }
    wanted = {(r["suite"], r["task"], r["task"], r["metric"]): round(r["value"], 6) for r in rows}
    assert len(rows) > 150 and found == wanted
    assert again[0]["dataset"]["args"] == {"protocol": rows[0]["protocol"], "num_few_shot": 0}


def test_one_entry_for_a_task_of_a_data_set_of_the_hub() -> None:
    data = {task: {"dataset": "somebody/letters", "revision": "a" * 40} for task in ("first", "second")}
    suites = {"one": {"data": {**data, "ours": {"dataset": "own", "revision": ""}}}, "two": {"data": data}}
    rows = [row("one", "first", metric, value) for metric, value in (("acc", 0.25), ("acc_norm", 0.75))]
    rows += [row("one", "ours"), row("one", "elsewhere"), row("two", "first"), row("two", "second", shots=5)]
    found = eval_results(rows, suites)
    assert {suite: [entry["value"] for entry in entries] for suite, entries in found.items()} == {
        "one": [0.75],
        "two": [0.5],
    }
    (parsed,) = huggingface_hub.parse_eval_result_entries(found["two"])
    assert (parsed.dataset_id, parsed.task_id, parsed.dataset_revision) == ("somebody/letters", "second", "a" * 40)
    assert parsed.notes == "protocol two-protocol, 5-shot, without BOS, acc as a share of 1 (0 to 1), N = 100"
    assert "acc_norm as a share of 1" in found["one"][0]["notes"]


def test_free_text_breaks_no_table() -> None:
    hostile = row("s", "t", protocol=HOSTILE, published={"name": HOSTILE}, note=HOSTILE, metric=HOSTILE)
    text = markdown("m", [hostile], {"s": {"title": HOSTILE, "data": {}}})
    assert "<script" not in text and "\n#" not in text.removeprefix("####")
    (line,) = [line for line in text.splitlines() if line.startswith("| a")]
    assert line.replace("\\|", "").count("|") == 7


def test_what_is_wrong_with_a_figure_stands_beside_it() -> None:
    rows = [
        row("s", "mislabelled", upstream_bug="Measures another task.", note="Cut."),
        row("s", "mislabelled", "acc_norm", upstream_bug="Measures another task.", note="Cut.", at_chance=True),
        row("s", "sound", note="Cut."),
    ]
    table = markdown("m", rows, {}).splitlines()
    assert "| mislabelled (1, 2) | s-protocol | acc | 0.5000 | ± | 0.0100 |" in table
    assert "|  |  | acc\\_norm (3) | 0.5000 | ± | 0.0100 |" in table
    assert "| sound (2) | s-protocol | acc | 0.5000 | ± | 0.0100 |" in table
    assert table[-3:] == ["- (1) Known error: Measures another task.", "- (2) Cut.", f"- (3) {AT_CHANCE}"]
    names = [metric["name"] for result in model_index("m", rows, {})["results"] for metric in result["metrics"]]
    assert names[0].endswith("acc, N = 100. Known error: Measures another task. Cut.")
    assert f"acc_norm, N = 100. {AT_CHANCE} Known error" in names[1] and names[2].endswith("N = 100. Cut.")
    suites = {"s": {"title": "S", "data": {"mislabelled": {"dataset": "a/b", "revision": ""}}}}
    assert "Measures another task." in eval_results(rows, suites)["s"][0]["notes"]


def results_json(folder: Path) -> dict[str, Path]:
    """Write a suite's results: a counted task at chance, a group with remarks, metrics of a part of the items."""

    def task(value: float, more: dict[str, float] | None = None, **facts: Any) -> dict[str, Any]:
        metrics = {"acc": value, **(more or {})}
        scores = {name: {"value": v, "stderr": 0.05, "chance": 0.25} for name, v in metrics.items()}
        base = {"items": 40, "metrics": scores, "chance_variance": 0.1875, "correct": int(value * 40), "shots": 0}
        return {**base, "bos": None, "upstream_bug": "", "note": "", **facts}

    def unguessed(metrics: dict[str, float]) -> dict[str, Any]:
        scores = {name: {"value": v, "stderr": None, "chance": None} for name, v in metrics.items()}
        return task(0.0, metrics=scores, correct=None)

    content = {
        "protocol": "p",
        "tasks": {
            "guessed": task(0.3),
            "known": task(0.9, upstream_bug="Holds other items."),
            "g_one": task(0.9, note="17 requests lost the left end of their context at 2048 tokens."),
            "g_two": task(0.9),
            "held_out": unguessed({"bits_per_byte": 1.5, "bits_per_byte/small": 1.7}),
            "replies": unguessed({"loops": 0.0, "words/turn_2": 12.0}),
        },
        "groups": {
            "g": {
                "tasks": ["g_one", "g_two"],
                "items": 80,
                "metrics": {"acc": {"value": 0.9, "stderr": 0.03, "chance": 0.25}},
            }
        },
    }
    path = folder / "benchmark" / "m" / "s"
    path.mkdir(parents=True)
    (path / "results.json").write_text(json.dumps(content))
    return {"m/s": path}


def test_a_release_says_what_its_figures_rest_on(tmp_path: Path) -> None:
    spec = spec_of("config/demo.yaml", "tiny-roleplay").model_copy(update={"trainings": [], "lineage": {}})
    rows = benchmark_rows(spec, results_json(tmp_path))
    by_name = {(r["task"], r["metric"]): r for r in rows}
    assert by_name[("guessed", "acc")]["at_chance"] and not by_name[("known", "acc")]["at_chance"]
    assert not by_name[("g", "acc")]["at_chance"]
    assert by_name[("g", "acc")]["note"] == (
        "Plain mean of 2 tasks; `_weighted` counts each item alike. "
        "g_one: 17 requests lost the left end of their context at 2048 tokens."
    )
    assert by_name[("held_out", "bits_per_byte")]["items"] == 40
    assert by_name[("held_out", "bits_per_byte/small")]["items"] is None
    assert by_name[("replies", "words/turn_2")]["items"] is None
    text = card(spec, {}, rows, [])
    assert (
        "| s | known (2) | acc | 0.9000 | 0.0500 | 0.2500 | 40 |" in text and "Known error: Holds other items." in text
    )
    assert "| s | guessed | acc (1) | 0.3000 | 0.0500 | 0.2500 | 40 |" in text
    assert "lost the left end of their context" in text
    assert "| s | replies | words/turn\\_2 | 12.0000 |  |  |  |" in text
    names = {
        metric["type"]: metric["name"]
        for result in yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"]
        for metric in result["metrics"]
    }
    assert "N = 40" in names["bits_per_byte"] and "N = 40" in names["loops"]
    assert "N =" not in names["bits_per_byte/small"] and "N =" not in names["words/turn_2"]
