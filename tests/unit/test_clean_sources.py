"""The source files of the repository."""

from pathlib import Path

import pytest

from scripts.recipe.models import Source
from scripts.recipe.yamlfile import load_yaml
from tests.conftest import ROOT

FOLDER = ROOT / "config" / "sources"
PUBLIC = ("pippa", "openorca", "claude_multi", "airoboros", "aidungeon")
PUBLIC += ("guess_instruction", "guess_instruction_airoboros")
PRIVATE = ("floyd", "rp_forums", "stories", "claude_rp")


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
