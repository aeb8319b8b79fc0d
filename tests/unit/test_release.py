"""The release stage without Snakemake: which models, cut recipes, cards, charts."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.artifact.stage import Job, StageError
from scripts.mix.render import render
from scripts.recipe.card import percent
from scripts.recipe.fetch import Fetch
from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from scripts.recipe.problems import RecipeError
from scripts.recipe.prompt_format import FORMATS, FormatName
from scripts.recipe.release import ReleaseSettings, ReleaseSpec
from scripts.release.build import take_licences, take_model
from scripts.release.card import QUIRKS, _made_from, card, front_matter
from scripts.release.chart import loss_chart
from scripts.release.datacard import data_card, source_table
from scripts.release.prompt import prompt_section
from scripts.release.results import Curve
from tests.conftest import ROOT
from tests.unit.report_fixtures import finish

RECIPES = ["config/demo.yaml", "tests/recipes/tiny.yaml", "config/pygmalion-2-13b.yaml", "config/mythalion-13b.yaml"]


def graph(path: Path, **more: Any) -> Graph:
    """Return the jobs of a recipe file."""
    return Graph(load_recipe([path], ROOT, more))


def spec_of(recipe: str, model: str, **more: Any) -> ReleaseSpec:
    """Return what a release is told."""
    spec = graph(ROOT / recipe, **more).jobs[("release", model)].spec
    assert isinstance(spec, ReleaseSpec)
    return spec


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_cut_recipe_makes_the_model_from_the_same_jobs(recipe: str, tmp_path: Path) -> None:
    whole = graph(ROOT / recipe)
    assert whole.of_stage("release")
    for job in whole.of_stage("release"):
        path = tmp_path / f"{job.name}.yaml"
        path.write_text(job.spec.recipe_file)  # type: ignore[attr-defined]
        cut = graph(path)
        made_of = [artifact for artifact in job.inputs if artifact[0] != "benchmark"]
        assert made_of
        for artifact in made_of:
            assert cut.jobs[artifact] == whole.jobs[artifact]
            ours, theirs = (json.dumps(g.jobs[artifact].spec.model_dump(mode="json")) for g in (cut, whole))
            assert ours == theirs, "in the same order, too"
        assert cut.jobs[("release", job.name)].spec.identity() == job.spec.identity()
        assert [j.name for j in cut.of_stage("release")] == [job.name]


def test_absolute_folders_become_variables(tmp_path: Path) -> None:
    fetch = {"folder": "/secret/place"}
    spec = spec_of("tests/recipes/tiny.yaml", "sapling", sources={"demo-pippa": {"fetch": fetch}})
    assert yaml.safe_load(spec.recipe_file)["sources"]["demo-pippa"]["fetch"]["folder"] == "$DEMO_PIPPA_FOLDER"
    assert "/secret" not in spec.recipe_file


def test_trained_and_merged_models_are_released_or_those_that_are_named() -> None:
    def names(**settings: Any) -> list[str]:
        return [job.name for job in graph(ROOT / "tests/recipes/tiny.yaml", release=settings).of_stage("release")]

    assert names() == ["sapling", "grafted"]
    assert names(models=["seedling"]) == ["seedling"]
    assert names(models=[]) == []
    with pytest.raises(RecipeError, match="'graftet' is not in the table of models.*did you mean \"grafted\""):
        names(models=["graftet"])
    with pytest.raises(RecipeError, match="named twice"):
        names(models=["grafted", "grafted"])


def test_where_it_is_uploaded_to_changes_no_key_but_that_of_a_child() -> None:
    hub = {"owner": "me", "private": False}
    base = spec_of("tests/recipes/tiny.yaml", "sapling").identity()
    assert spec_of("tests/recipes/tiny.yaml", "sapling", release=hub).identity() == base
    before = spec_of("tests/recipes/tiny.yaml", "grafted").identity()
    assert spec_of("tests/recipes/tiny.yaml", "grafted", release={"private": False}).identity() == before
    named = spec_of("tests/recipes/tiny.yaml", "grafted", release=hub).identity()
    assert named != before and {**named, "hub_bases": before["hub_bases"]} == before
    assert spec_of("tests/recipes/tiny.yaml", "grafted", release={"license": "mit"}).identity() != before


def test_front_matter_names_bases_and_data_of_the_hub_only() -> None:
    spec = spec_of("config/pygmalion-2-13b.yaml", "pygmalion-2-13b")
    front = front_matter(spec, [])
    assert front["license"] == "llama2"
    assert front["base_model"] == ["meta-llama/Llama-2-13b-hf"]
    assert front["base_model_relation"] == "finetune"
    assert all("/" in name for name in front["datasets"])
    assert "base_model" not in front_matter(spec_of("tests/recipes/tiny.yaml", "grafted"), [])


def bases_of(model: str, recipe: str = "config/mythalion-13b.yaml", **release: Any) -> tuple[Any, Any, str]:
    """Return base_model and base_model_relation of a release's metadata, and the sentence about its parents."""
    spec = spec_of(recipe, model, release=release)
    front = front_matter(spec, [])
    return front.get("base_model"), front.get("base_model_relation"), _made_from(spec)


def test_a_merge_names_all_its_parents_or_none() -> None:
    llama, mythomax = "meta-llama/Llama-2-13b-hf", "Gryphe/MythoMax-L2-13b"
    bases, relation, said = bases_of("mythalion-13b")
    assert (bases, relation) == ([llama, mythomax], "merge"), "what the parent trained here was made from"
    assert said == (
        f"A merge of pygmalion-2-13b and {mythomax}. "
        f"For pygmalion-2-13b, which was made here, the metadata name {llama}."
    )
    bases, relation, said = bases_of("mythalion-13b", owner="me")
    assert (bases, relation) == (["me/pygmalion-2-13b", mythomax], "merge")
    assert said.endswith("which was made here, the metadata name me/pygmalion-2-13b.")
    assert bases_of("mythalion-13b", owner="me", models=["mythalion-13b"])[0] == [llama, mythomax], "it is not released"
    bases, relation, said = bases_of("grafted", "tests/recipes/tiny.yaml", owner="me")
    assert bases is None and relation is None and "name no base model" in said, "one parent is on no hub"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"license": "llama2", "license_name": "llama-2"}, "license_name goes with `license: other`, found 'llama2'"),
        ({"license_name": "own"}, "wants license_name and license_link with `other`; found license_name alone"),
        ({"license_link": "https://a.b"}, "found license_link alone"),
        ({"license_name": "Own Words", "license_link": "https://a.b"}, "license_name"),
    ],
)
def test_half_a_licence_is_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        spec_of("tests/recipes/tiny.yaml", "grafted", release=settings)


def test_an_own_licence_is_named_and_linked(tmp_path: Path) -> None:
    own = {"license_name": "own-words", "license_link": "https://example.org/words"}
    text = made_card(spec_of("tests/recipes/tiny.yaml", "grafted", release=own), tmp_path)
    front = yaml.safe_load(text.split("---\n")[1])
    assert {"license": "other", **own}.items() <= front.items()
    assert "Licence: own-words, https://example.org/words." in text


def test_every_recipe_on_llama_2_says_so(tmp_path: Path) -> None:
    asked = ReleaseSettings(license="llama2").notice_text
    assert asked.startswith("Llama 2 is licensed under the LLAMA 2 Community License, Copyright")
    shipped = sorted(path for path in (ROOT / "config").glob("*.yaml") if path.name != "demo.yaml")
    for job in [job for path in shipped for job in graph(path).of_stage("release")]:
        assert isinstance(job.spec, ReleaseSpec)
        assert job.spec.settings.notice_text == asked, job.name
        # Its parent's own licence may bind further: none is claimed for it.
        assert job.spec.settings.license == ("other" if job.name == "mythologic-mini-7b" else "llama2"), job.name
    assert asked in made_card(spec_of("config/pygmalion-2-13b.yaml", "pygmalion-2-13b"), tmp_path)


def test_licence_files_of_the_bases_go_along(tmp_path: Path) -> None:
    inputs = {}
    files = {
        "download/base": {"config.json": "{}", "LICENSE.txt": "words", "USE_POLICY.md": "rules", "README.md": "card"},
        "download/rows": {"rows.jsonl": "", "LICENSE": "of the data"},
        "train/tuned": {"config.json": "{}"},
    }
    for name, texts in files.items():
        inputs[name] = tmp_path / name
        inputs[name].mkdir(parents=True)
        for file, text in texts.items():
            (inputs[name] / file).write_text(text)
        finish(inputs[name], name)
    (tmp_path / "out").mkdir()
    spec = spec_of("config/pygmalion-2-13b.yaml", "pygmalion-2-13b")
    job = Job(spec, inputs, tmp_path / "out", tmp_path / "work", threads=1)
    take_licences(job, "train/tuned")
    found = {p.relative_to(job.out).as_posix(): p.read_text() for p in job.out.rglob("*") if p.is_file()}
    licences = {"licenses/base/LICENSE.txt": "words", "licenses/base/USE_POLICY.md": "rules"}
    assert found == {**licences, "NOTICE": spec.settings.notice_text + "\n"}
    assert set(job.digests) == set(licences)


def made_card(spec: ReleaseSpec, tmp_path: Path) -> str:
    """Return the card, with an artifact of no files in the place of each input."""
    inputs = {}
    for name in spec.lineage:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "SHA256SUMS").write_text("")
        inputs[name] = tmp_path / name
    return card(spec, inputs, [], [Curve(t.model, [(1, 2.0)], [], 7) for t in spec.trainings])


def test_missing_sources_and_quirks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "released.yaml"
    text = (ROOT / "config/pygmalion-2-13b.yaml").read_text()
    path.write_text(text.replace("preset: corrected", "preset: as-released"))
    kept = graph(path).jobs[("release", "pygmalion-2-13b")].spec
    mended = spec_of("config/pygmalion-2-13b.yaml", "pygmalion-2-13b")
    assert isinstance(kept, ReleaseSpec)
    with_quirks, without = made_card(kept, tmp_path / "a"), made_card(mended, tmp_path / "b")
    for (section, key), (value, _) in QUIRKS.items():
        assert f"`{section}.{key}: {value}`" in with_quirks
    assert "Quirks" not in without
    assert "rp\\_forums" in without and "This is not the original mixture" in without
    assert "**missing**" in data_card(mended, {})


# Written out, not computed: a line break too many teaches users a prompt that the model never saw.
EXAMPLES = {
    "metharme": "<|system|>who you are<|user|>a question<|model|>an answer</s>"
    "<|user|>another question<|model|>another answer</s>",
    "chatml": "<|im_start|>system\nwho you are<|im_end|>\n<|im_start|>user\na question<|im_end|>\n"
    "<|im_start|>assistant\nan answer<|im_end|></s>\n<|im_start|>user\nanother question<|im_end|>\n"
    "<|im_start|>assistant\nanother answer<|im_end|></s>",
    "alpaca": "who you are\n\n### Instruction:\na question\n\n### Response:\nan answer</s>\n\n"
    "### Instruction:\nanother question\n\n### Response:\nanother answer</s>",
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_of_the_prompt_format_is_what_training_sees(name: FormatName) -> None:
    section = prompt_section(name, "</s>")
    shown = "\n".join(line.removeprefix("    ") for line in section if line.startswith("    "))
    assert shown == EXAMPLES[name]
    turns = [("user", "a question"), ("model", "an answer"), ("user", "another question"), ("model", "another answer")]
    trained = "".join(segment.text for segment in render("who you are", turns, FORMATS[name]).segments)
    assert shown.replace("</s>", "") == trained


def test_origins_are_what_they_are() -> None:
    spec = spec_of("config/pygmalion-2-13b.yaml", "pygmalion-2-13b")
    origin = {line.split(" | ")[0].lstrip("| "): line.split(" | ")[-1].rstrip(" |") for line in source_table(spec)}
    assert origin["guess\\_instruction"] == "databricks/databricks-dolly-15k", "its web address is one of the hub"
    assert origin["aidungeon"].startswith("https://raw.githubusercontent.com/Latitude-Archives/AIDungeon/")
    assert origin["pippa"] == "PygmalionAI/PIPPA" and "own copy" not in origin.values()
    assert "databricks/databricks-dolly-15k" in front_matter(spec, [])["datasets"]
    ours = spec_of("tests/recipes/tiny.yaml", "grafted")
    assert "| own copy |" in source_table(ours)[2]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://huggingface.co/datasets/a/b/resolve/main", "a/b"),
        ("https://huggingface.co/datasets/a/b.c", "a/b.c"),
        ("https://huggingface.co/a/b/resolve/main", ""),
        ("https://example.org/huggingface.co/datasets/a/b", ""),
        ("https://huggingface.co.example.org/datasets/a/b", ""),
    ],
)
def test_which_web_addresses_are_data_sets_of_the_hub(url: str, name: str) -> None:
    assert Fetch.model_validate({"url": url, "files": {"f": {"sha256": "0" * 64}}}).hub_dataset == name


def test_hostile_names_break_no_card() -> None:
    spec = spec_of("tests/recipes/tiny.yaml", "grafted", sources={"demo-pippa": {"title": "a | b\n# <script>"}})
    table = data_card(spec, {})
    assert "a \\| b \\# &lt;script&gt;" in table and "\n# <script>" not in table


def test_the_chart_is_sound_svg() -> None:
    curve = Curve("a<b", [(1, 7.0), (2, 5.0), (3, 4.0)], [(0, 7.1), (3, 4.2)], 3)
    text = loss_chart(curve)
    root = ET.fromstring(text)
    assert root.tag.endswith("svg")
    numbers = [float(n) for n in re.findall(r"[\d.]+", root.findall("{*}polyline")[0].attrib["points"])]
    assert numbers[1] < numbers[3] < numbers[5], "a falling loss runs downwards"
    assert len(root.findall("{*}circle")) == 2
    assert loss_chart(Curve("flat", [], [], 0))


@pytest.mark.parametrize(
    ("curve", "steps"),
    [
        (Curve("two steps", [(1, 2.3004), (2, 2.3021)], [], 2), ["0", "1", "2"]),
        (Curve("flat", [(1, 2.3), (2, 2.3)], [], 2), ["0", "1", "2"]),
        (Curve("hardly", [(1, 2.3), (2, 2.3000001)], [], 2), ["0", "1", "2"]),
        (Curve("long", [(4, 2.5), (400, 1.5)], [], 400), ["0", "100", "200", "300", "400"]),
    ],
)
def test_no_label_of_the_chart_stands_twice(curve: Curve, steps: list[str]) -> None:
    labels = [text for element in ET.fromstring(loss_chart(curve)).findall("{*}text") if (text := element.text)]
    numbers = [text for text in labels if re.fullmatch(r"[\d.]+", text)]
    losses = [text for text in numbers if "." in text]
    assert [text for text in numbers if "." not in text] == steps
    assert len(losses) == len(set(losses)) == 5


def test_a_share_of_something_is_not_nothing(tmp_path: Path) -> None:
    counts = {"rows_train": 1, "rows_validation": 0, "target_percent": None}
    sources = {"much": {**counts, "chars_train": 9996, "target_percent": 99.0}, "little": {**counts, "chars_train": 4}}
    facts = {"format": "metharme", "val_set_size": 0.01, "seed": 1, "missing_sources": [], "missing_percent": {}}
    (tmp_path / "mix.json").write_text(json.dumps({**facts, "sources": sources}))
    text = data_card(spec_of("tests/recipes/tiny.yaml", "grafted"), {"m": tmp_path})
    assert "| % of characters | original % of tokens |" in text
    assert "| little | 1 | 0 | 4 | <0.1 |  |" in text and "| much | 1 | 0 | 9,996 | 100.0 | 99 |" in text
    assert [percent(part, 100) for part in (0, 0.04, 0.05, 0.25)] == ["0.0", "<0.1", "0.1", "0.2"]
    assert percent(0, 0) == "0.0"


@pytest.mark.parametrize(
    ("left_out", "gguf", "said"),
    [
        ("tokenizer.model", [], None),
        ("tokenizer.model", ["f16"], "GGUF is written from tokenizer.model.*release: {gguf: \\[\\]}"),
        ("tokenizer.model tokenizer.json", [], "missing: tokenizer.model or tokenizer.json; add"),
        ("config.json model.safetensors", ["f16"], r"missing: config.json, \*.safetensors; add"),
    ],
)
def test_one_kind_of_tokenizer_is_enough_but_for_gguf(
    tmp_path: Path, left_out: str, gguf: list[str], said: str | None
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.model", "tokenizer.json",
                 "model.safetensors"):  # fmt: skip
        if name not in left_out.split():
            (model / name).write_text("{}")
    finish(model, "train/tuned")
    (tmp_path / "out").mkdir()
    spec = spec_of("config/pygmalion-2-13b.yaml", "pygmalion-2-13b", release={"gguf": gguf})
    job = Job(spec, {"train/tuned": model}, tmp_path / "out", tmp_path / "work", threads=1)
    if said is None:
        take_model(job, "train/tuned", model)
        assert (job.out / "tokenizer.json").is_file() and not (job.out / "tokenizer.model").exists()
        return
    with pytest.raises(StageError, match=said):
        take_model(job, "train/tuned", model)
