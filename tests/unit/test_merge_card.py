"""Recipes in the repository, chains of merges, the model card, and the folder as other programs load it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from scripts.artifact.digest import RECORD, SUMS, value_of
from scripts.artifact.record import write_record
from scripts.merge.card import known_digests
from scripts.merge.show import preview
from scripts.recipe.card import inert as text
from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from scripts.recipe.merge import MergeSpec
from tests.conftest import ROOT
from tests.unit import merge_toy as toys

SHIPPED: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "mythalion-13b": ("mythalion-13b", toys.MYTHALION),
    "mythalion-13b-prose": ("mythalion-13b-prose", toys.PROSE),
    "mythalion-13b-legacy": ("mythalion-13b-prose", toys.MYTHALION),
    "mythomax-l2-13b": ("mythomax-l2-13b", toys.MYTHOMAX),
    "mythomix-l2-13b": ("mythomix-l2-13b", toys.MYTHOMIX),
    "mythologic-mini-7b": ("mythologic-mini-7b", toys.MYTHOLOGIC_MINI),
}


def shipped(name: str) -> tuple[Graph, MergeSpec]:
    """Return the graph of a recipe file of the repository, and the merge of that name in it."""
    graph = Graph(load_recipe([ROOT / "config" / f"{SHIPPED[name][0]}.yaml"], ROOT))
    spec = graph.jobs[("merge", name)].spec
    assert isinstance(spec, MergeSpec)
    return graph, spec


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_merges_as_the_reference_does(name: str, tmp_path: Path) -> None:
    """The file in config/, not a copy of it in a test: its own settings on toys, against the formula."""
    graph, spec = shipped(name)
    layers = 32 if "7b" in name else 40
    first = toys.toy(tmp_path / "a", 1, "bfloat16", layers=layers)
    second = toys.toy(tmp_path / "b", 2, "float16", layers=layers)
    given = spec.model_dump(exclude={"model", "models", "hub", "lineage"})
    made = toys.merge(tmp_path, first, second, **given)
    legacy = name.endswith("legacy")
    assert spec.legacy_inv_freq is legacy
    wanted = toys.reference(toys.load(first), toys.load(second), SHIPPED[name][1], legacy=legacy)
    assert toys.same_bits(toys.load(made.out), wanted) == []
    lines = list(preview(graph.recipe, name, tmp_path / "nothing"))
    assert lines[-1] == f"{9 * layers + 3} tensors"


def test_parents_that_no_commit_is_known_of_refuse_to_be_downloaded() -> None:
    for name in SHIPPED:
        graph, _ = shipped(name)
        for model, row in graph.recipe.models.items():
            if row.download is not None and model != "llama-2-13b":
                assert row.download.unconfirmed
                assert not row.download.pinned


def test_recipes_say_what_cannot_be_rebuilt() -> None:
    for name in ("mythomax-l2-13b", "mythomix-l2-13b"):
        said = (ROOT / "config" / f"{name}.yaml").read_text()
        assert "can't be rebuilt" in said
        assert "Huginn's recipe was never published" in said


def test_a_merge_of_a_merge(tmp_path: Path) -> None:
    a, b, c = (toys.toy(tmp_path / n, i, "bfloat16", layers=40) for i, n in enumerate("abc"))
    inner = toys.merge(tmp_path / "inner", a, b, operations=toys.MYTHOMAX)
    outer = toys.merge(tmp_path / "outer", c, inner.out)
    middle = toys.reference(toys.load(a), toys.load(b), toys.MYTHOMAX)
    assert toys.same_bits(toys.load(outer.out), toys.reference(toys.load(c), middle, toys.MYTHALION)) == []


def test_a_chain_in_a_recipe_is_only_names() -> None:
    place = {"hub": f"o/x@{'0' * 40}", "files": {"config.json": None}}
    merged = {"operations": toys.MYTHALION}
    models = {
        "outer": {"merge": {"models": ["c", "inner"], **merged}},  # before its parent: order in the file is free
        "inner": {"merge": {"models": ["a", "b"], **merged}},
        **{name: {"download": place} for name in "abc"},
    }
    path = ROOT / "config" / "mythomax-l2-13b.yaml"
    loaded = load_recipe([path], ROOT)
    recipe = loaded.recipe.model_validate({"name": "chain", "models": models})
    graph = Graph(type(loaded)(**{**loaded.__dict__, "recipe": recipe}))
    assert graph.jobs[("merge", "outer")].inputs == (("download", "c"), ("merge", "inner"))
    spec = graph.jobs[("merge", "outer")].spec
    assert isinstance(spec, MergeSpec)
    assert spec.lineage == {
        "download/c": [],
        "download/a": [],
        "download/b": [],
        "merge/inner": ["download/a", "download/b"],
    }
    assert spec.hub == {"c": "o/x"}


def front_matter(card: str) -> dict[str, Any]:
    """Return the YAML between the first two lines of dashes."""
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def published(folder: Path, *inputs: tuple[str, str]) -> str:
    """Give a folder the records of an artifact and return its value."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMS).write_text(f"{'0' * 64}  {folder.name}\n")
    write_record(folder / RECORD, {"value": value_of(folder), "inputs": [list(pair) for pair in inputs]})
    return value_of(folder)


def test_the_card_names_bases_digests_and_lineage(tmp_path: Path) -> None:
    results = tmp_path / "results" / "toy"
    toys.toy(results / "train" / "first", 1, layers=3)
    toys.toy(results / "download" / "second", 2, layers=3)
    mix = published(results / "mix" / "m")
    pack = published(results / "pack" / "first", ("mix/m", mix))
    stale = published(results / "clean" / "s")
    ours = published(results / "train" / "first", ("pack/first", pack), ("clean/s", "1" * 64))
    theirs = published(results / "download" / "second")
    lineage = {"train/first": ["pack/first"], "pack/first": ["mix/m"], "mix/m": [], "download/second": []}
    made = toys.job(tmp_path, Path(), Path(), hub={"second": "Somebody/Second"}, lineage=lineage)
    made.inputs = {"train/first": results / "train" / "first", "download/second": results / "download" / "second"}
    toys.build(made)
    card = (made.out / "README.md").read_text()
    assert front_matter(card) == {
        "base_model": ["first", "Somebody/Second"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["merge"],
    }
    assert f"| train/first | pack/first | {ours} |" in card
    assert f"| download/second |  | {theirs} |" in card
    assert card.index("| mix/m |") < card.index("| pack/first | mix/m |") < card.index("| train/first |")
    assert r"| self\_attn.q\_proj | 3 | 0.20000 | 0.63636 |" in card
    # What lies further back is not fixed by this merge's key, so it stands in the record and not in the payload.
    assert mix not in card
    known = {"train/first": ours, "pack/first": pack, "mix/m": mix, "download/second": theirs, "clean/s": "1" * 64}
    assert made.counts["lineage"] == dict(sorted(known.items()))
    assert stale not in known_digests(made.inputs).values()


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    words = "a | b\n# head <script>x</script> [l](http://e) `c` ![i](x) \\ --- {% raw %} ~~s~~"
    operations = [{"operation": words, "filter": "", "gradient_values": [0.5]}]
    first, second = toys.toy(tmp_path / "a", 1), toys.toy(tmp_path / "b", 2)
    hub = {"second": 'o/"x": [y]\n- z'}
    made = toys.merge(tmp_path, first, second, operations=operations, hub=hub)
    card = (made.out / "README.md").read_text()
    assert front_matter(card)["base_model"] == ["first", hub["second"]]
    (row,) = [line for line in card.splitlines() if line.startswith("| a ")]
    assert row.replace("\\|", "").count("|") == 4
    assert "<script" not in card
    assert text("[l](x)") == r"\[l\](x)"
    assert text("a\n\n# b") == r"a \# b"


def test_the_card_says_the_same_for_any_threads(tmp_path: Path) -> None:
    first, second = toys.toy(tmp_path / "a", 1), toys.toy(tmp_path / "b", 2)
    cards = {(toys.merge(tmp_path / str(n), first, second, n).out / "README.md").read_bytes() for n in (1, 2, 4)}
    assert len(cards) == 1
    assert str(tmp_path).encode() not in cards.pop()


def test_the_folder_is_what_loaders_look_for(tmp_path: Path) -> None:
    """Config types under both keys, index and shard sizes, tokenizer files, template; read by transformers itself."""
    transformers = pytest.importorskip("transformers")
    first = toys.toy(tmp_path / "a", 1, "bfloat16", shards=2, layers=3)
    second = toys.toy(tmp_path / "b", 2, "float16", layers=3)
    made = toys.merge(tmp_path, first, second, max_shard_bytes=1500)
    present = {path.name for path in made.out.iterdir()}
    assert {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merge.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    } <= present
    shards = sorted(made.out.glob("*.safetensors"))
    assert [p.name for p in shards] == [
        f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))
    ]
    config = json.loads((made.out / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "float16"
    loaded = transformers.AutoConfig.from_pretrained(made.out)
    assert loaded.dtype == torch.float16
    model, facts = transformers.AutoModelForCausalLM.from_pretrained(made.out, output_loading_info=True)
    assert not any(facts[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert {t.dtype for t in model.state_dict().values()} == {torch.float16}
    assert transformers.GenerationConfig.from_pretrained(made.out).bos_token_id == 1
