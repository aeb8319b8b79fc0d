"""`snakemake release` and `snakemake publish` on the tiny recipe."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.artifact.digest import read_sums, sha256_file, value_of
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


def _bom(released: Bench) -> dict[str, Any]:
    command = ("export", "bom", "results/tiny/release/grafted", "--recipe", released.recipe)
    done = released.python("-m", "scripts.artifact", *command)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def test_every_hash_of_the_bom_can_be_checked(released: Bench) -> None:
    bom = _bom(released)
    results = released.folder / "results" / "tiny"
    hashed = _with_hashes(bom)
    assert len(hashed) > 30
    for entity in hashed:
        assert [h["alg"] for h in entity["hashes"]] == ["SHA-256"]
        assert sha256_file(results / entity["name"]) == entity["hashes"][0]["content"]
    model = bom["metadata"]["component"]
    weights = read_sums(results / "release/grafted")["model.safetensors"]
    assert weights in {h["content"] for entity in model["components"] for h in entity["hashes"]}
    refs = {model["bom-ref"], *(component["bom-ref"] for component in bom["components"])}
    assert {d["ref"] for d in bom["dependencies"]} == refs
    assert {ref for d in bom["dependencies"] for ref in d["dependsOn"]} <= refs
    licences = {c["bom-ref"]: c["licenses"] for c in bom["components"] if "licenses" in c}
    assert set(licences) == {"download/demo-pippa", "download/demo-airoboros"}
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    results_json = json.loads((results / "benchmark/grafted/quick/results.json").read_text())
    wanted = str(results_json["tasks"]["word_order"]["metrics"]["acc"]["value"])
    assert {"type": "acc", "value": wanted, "slice": "quick/word_order"} in metrics
    assert _bom(released) == bom, "no clock and no machine stands in it"


def _with_hashes(value: Any) -> list[dict[str, Any]]:
    """Return every object of a JSON value that has a `hashes` field."""
    if isinstance(value, list):
        return [found for item in value for found in _with_hashes(item)]
    if not isinstance(value, dict):
        return []
    return ([value] if "hashes" in value else []) + _with_hashes(list(value.values()))


def test_the_bom_is_valid_cyclonedx(released: Bench, tmp_path: Path) -> None:
    python = os.environ.get("CYCLONEDX_PYTHON", sys.executable)
    (tmp_path / "bom.json").write_text(json.dumps(_bom(released)))
    code = "import sys; from cyclonedx.validation.json import JsonStrictValidator as V\n"
    code += "from cyclonedx.schema import SchemaVersion\n"
    code += "sys.exit(repr(V(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()) or 0).strip('0') or 0)"
    probe = subprocess.run([python, "-c", "import cyclonedx"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("cyclonedx-python-lib[json-validation] is not installed: set CYCLONEDX_PYTHON to a Python with it")
    done = subprocess.run([python, "-c", code, str(tmp_path / "bom.json")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_lineage_that_is_gone_gives_no_bom(released: Bench, tmp_path: Path) -> None:
    bench = released.copy(tmp_path / "copy")
    shutil.rmtree(bench.folder / "results/tiny/mix/chats")
    done = bench.python(
        "-m", "scripts.artifact", "export", "bom", "results/tiny/release/grafted", "--recipe", bench.recipe
    )
    assert done.returncode == 2
    assert "mix/chats: missing now" in done.stderr and done.stdout == ""
