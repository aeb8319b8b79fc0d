"""The source files of the repository."""

from pathlib import Path

import pytest
import yaml

from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from scripts.recipe.mix import MixSpec
from scripts.recipe.models import Source
from scripts.recipe.problems import RecipeError
from scripts.recipe.yamlfile import load_yaml
from tests.conftest import ROOT

FOLDER = ROOT / "config" / "sources"
PUBLIC = ("pippa", "openorca", "claude_multi", "airoboros", "aidungeon")
PUBLIC += ("guess_instruction", "guess_instruction_airoboros")
PRIVATE = ("floyd", "rp_forums", "stories", "claude_rp")


ALL = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SPDX = {"Apache-2.0", "MIT", "CC-BY-NC-4.0", "CC-BY-SA-3.0"}


def load(name: str) -> Source:
    data, _ = load_yaml(FOLDER / f"{name}.yaml")
    return Source.model_validate(data)


@pytest.mark.parametrize("name", [*PUBLIC, *PRIVATE])
def test_source_is_valid(name: str) -> None:
    source = load(name)
    assert source.known_problems and source.license and source.private == (name in PRIVATE)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_sources_are_pinned(name: str) -> None:
    fetch = load(name).fetch
    assert fetch is not None
    assert fetch.hub is not None or all(pin is not None and pin.bytes for pin in fetch.files.values())


@pytest.mark.parametrize("name", PRIVATE)
def test_private_sources_document_their_format(name: str) -> None:
    assert load(name).fetch is None
    text = Path(FOLDER / f"{name}.yaml").read_text()
    assert text.startswith("#") and "Schema:" in text


@pytest.mark.parametrize("name", ALL)
def test_every_file_says_what_a_reader_must_know(name: str) -> None:
    source = load(name)
    data, _ = load_yaml(FOLDER / f"{name}.yaml")
    wanted = {"title", "license", "redistributable", "purpose", "generator", "known_problems", "read"}
    assert wanted <= set(data), f"not written out: {sorted(wanted - set(data))}"
    assert source.license in SPDX | {"private", "none stated"}
    assert source.generator != "unknown" and source.title.strip()
    assert all(len(problem) > 15 for problem in source.known_problems) and source.known_problems
    # Nothing without a licence is published again.
    assert source.license in SPDX or not source.redistributable
    assert source.private or (source.fetch is not None and source.fetch.pinned)


def test_every_source_of_the_mixture_has_a_file() -> None:
    assert set(PUBLIC) | set(PRIVATE) | {name for name in ALL if name.startswith("demo-")} == set(ALL)
    assert load("pippa").read.model_dump()["submitted_before"] == 1673049600000
    play = {name: load(name).generator for name in ALL if load(name).purpose == "roleplay"}
    assert set(play) == {"pippa", "claude_rp", "rp_forums", "demo-pippa"} and "openai" not in play.values()


def recipe(tmp_path: Path, **share: object) -> list[Path]:
    own = {"mixtures": {"instruct": {"sources": {"rp_forums": {"target_percent": 24.0, **share}}}}}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(own))
    return [ROOT / "config" / "demo.yaml", path]


def test_a_missing_private_source_stops_with_its_share(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe(tmp_path), ROOT)
    (problem,) = caught.value.problems
    for part in ("mixtures.instruct.sources.rp_forums", "24 % of this mixture", "sources.rp_forums.fetch", "reweight"):
        assert part in problem


def test_a_missing_private_source_is_recorded(tmp_path: Path) -> None:
    graph = Graph(load_recipe(recipe(tmp_path, missing="reweight"), ROOT))
    spec = graph.jobs[("mix", "instruct")].spec
    assert isinstance(spec, MixSpec)
    assert (spec.missing_sources, spec.missing_percent) == (["rp_forums"], {"rp_forums": 24.0})
    assert ("clean", "rp_forums") not in graph.jobs
