"""`snakemake release` and `snakemake publish` on the tiny recipe."""

import json

import pytest
import yaml

from scripts.artifact.digest import read_sums, value_of
from tests.pipeline.bench import Bench
from tests.pipeline.conftest import logs


@pytest.fixture(scope="module")
def released(built: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A copy of the finished run with its releases."""
    bench = built.copy(tmp_path_factory.mktemp("release") / "copy")
    run = bench.run("release")
    assert run.code == 0, run.output + logs(bench)
    assert sorted(run.jobs) == ["release grafted", "release sapling"], "nothing else is built again"
    return bench


def test_all_does_not_release(built: Bench) -> None:
    assert not (built.folder / "results/tiny/release").exists()


def test_a_release_holds_all_that_the_hub_shows(released: Bench) -> None:
    folder = released.folder / "results/tiny/release/grafted"
    files = set(read_sums(folder))
    assert {
        "README.md",
        "DATASETS.md",
        "recipe.yaml",
        "recipe.lock",
        "model.safetensors",
        "tokenizer.model",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "grafted-F16.gguf",
        "grafted-Q8_0.gguf",
        "sillytavern/instruct.json",
        "koboldcpp/adapter.json",
        "sapling-loss.svg",
    } <= files
    front = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert front["license"] == "other" and "merge" in front["tags"]
    rows = front["model-index"][0]["results"]
    results = json.loads((released.folder / "results/tiny/benchmark/grafted/quick/results.json").read_text())
    wanted = results["tasks"]["word_order"]["metrics"]["acc"]["value"]
    shown = [
        m["value"] for r in rows if r["dataset"]["name"] == "word_order" for m in r["metrics"] if m["type"] == "acc"
    ]
    assert shown == [round(wanted, 6)]
    card = (folder / "README.md").read_text()
    for name in ("train/sapling", "mix/chats", "download/demo-pippa", "merge/grafted"):
        assert value_of(released.folder / "results/tiny" / name) in card, f"the card gives the digest of {name}"
    model = read_sums(released.folder / "results/tiny/merge/grafted")
    assert read_sums(folder)["model.safetensors"] == model["model.safetensors"]
    assert str(released.folder) not in "".join(
        p.read_text(errors="ignore") for p in folder.rglob("*") if p.is_file() and p.name != "provenance.json"
    )


def test_the_cut_recipe_plans_the_same_model(released: Bench) -> None:
    """Its jobs have the keys of the artifacts that lie there: nothing of the lineage would be built again."""
    released.recipe, before = "results/tiny/release/grafted/recipe.yaml", released.recipe
    try:
        run = released.run("-n", "merge")
    finally:
        released.recipe = before
    assert (run.code == 0 and run.nothing) or "Nothing to be done" in run.output, run.output


def test_a_second_call_has_nothing_to_do_and_verifies(released: Bench) -> None:
    assert released.run("release").nothing
    done = released.python("-m", "scripts.artifact", "verify", "results/tiny")
    assert done.returncode == 0, done.stdout


def test_publish_is_a_dry_run_unless_asked(released: Bench) -> None:
    run = released.run("publish")
    assert run.code == 0, run.output
    assert "grafted-Q8_0.gguf" in run.output and "nothing was uploaded" in run.output
    asked = released.run("publish", "--config", "publish=yes")
    assert asked.code != 0
    assert "set release.owner in the recipe" in asked.output
