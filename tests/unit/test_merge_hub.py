"""The preview over the hub: headers and nothing else, counted at a server on loopback."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.artifact.digest import ArtifactError
from scripts.artifact.stage import StageError
from scripts.merge.remote import open_remote
from scripts.merge.show import preview
from scripts.recipe.fetch import Fetch
from scripts.recipe.models import Recipe
from tests.unit import merge_toy as toys
from tests.unit.hub_server import COMMIT, TOKEN, HubServer


def content(folder: Path) -> dict[str, bytes]:
    """Return a model folder as a repository."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with two models of 4 layers: three shards, and one file."""
    first = toys.toy(tmp_path / "a", 1, "bfloat16", shards=3, layers=4, hidden=128)
    second = toys.toy(tmp_path / "b", 2, "float16", layers=4, hidden=128)
    repositories = {"somebody/first": content(first), "somebody/second": content(second)}
    large = frozenset(n for files in repositories.values() for n in files if n.endswith(".safetensors"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer(repositories, large) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def fetch(name: str = "first", commit: str = COMMIT, **more: Any) -> Fetch:
    """Return a pinned repository of the test hub."""
    place = f"somebody/{name}@{commit}" if commit else f"somebody/{name}"
    return Fetch.model_validate({"hub": place, "files": {"config.json": None}, **more})


def recipe(**second: Any) -> Recipe:
    """Return a recipe that merges a fine-tune of the first repository with the second repository."""
    row = {"hub": f"somebody/second@{COMMIT}", "files": {"config.json": None}, **second}
    base = {"hub": f"somebody/first@{COMMIT}", "files": {"config.json": None}}
    mixtures = {"m": {"sources": {"demo-pippa": {"missing": "reweight"}}}}
    models = {
        "base": {"download": base},
        "tuned": {"train": {"base": "base", "mixture": "m"}},
        "other": {"download": row},
        "merged": {"merge": {"models": ["tuned", "other"], "operations": toys.MYTHALION}},
    }
    return Recipe.model_validate({"name": "toy", "mixtures": mixtures, "models": models})


def test_only_config_index_and_header_bytes_are_sent(hub: HubServer, tmp_path: Path) -> None:
    hub.mood.storage = hub.address  # weights answer by a redirect, as the hub's do
    lines = list(preview(recipe(), "merged", tmp_path / "results", hub=True))
    assert f"somebody/first@{COMMIT} and headers of somebody/second@{COMMIT}" in lines[0]
    assert lines[-1] == "39 tensors"
    wanted: dict[str, int] = {}
    for repository, files in hub.repositories.items():
        for name, data in files.items():
            if name.endswith(".safetensors"):
                wanted[name] = 8 + struct.unpack("<Q", data[:8])[0]
            elif name in {"config.json", "model.safetensors.index.json"}:
                wanted[name] = wanted.get(name, 0) + len(data)
        assert repository
    found: dict[str, int] = {}
    for path, count in hub.sent:
        found[path] = found.get(path, 0) + count
    assert found == wanted
    weights = sum(len(d) for files in hub.repositories.values() for n, d in files.items() if n.endswith(".safetensors"))
    assert sum(c for n, c in found.items() if n.endswith(".safetensors")) < weights / 100


def test_without_the_switch_nothing_is_asked(hub: HubServer, tmp_path: Path) -> None:
    lines = list(preview(recipe(), "merged", tmp_path, 4))
    assert "nothing built yet" in lines[0]
    assert hub.requests == []


def test_remote_headers_are_those_of_the_files(hub: HubServer) -> None:
    found, words = open_remote("x", fetch())
    assert words == f"somebody/first@{COMMIT}"
    names = list(json.loads(hub.repositories["somebody/first"]["model.safetensors.index.json"])["weight_map"])
    assert sorted(found.tensors) == sorted(names)
    assert found.tensors["lm_head.weight"].entry.dtype == "BF16"


def test_an_unpinned_model_is_read_at_main_and_its_commit_is_named(hub: HubServer) -> None:
    _, words = open_remote("x", fetch(commit="", unconfirmed="nobody knows"))
    assert words.startswith(f"somebody/first@{COMMIT} (main of today")
    paths = [path for method, path, _ in hub.requests if method == "GET"]
    assert "/main/" in paths[0]
    assert all(f"/{COMMIT}/" in path for path in paths[1:])  # a push in between can't mix two revisions


def test_models_that_do_not_fit_are_told_from_headers(hub: HubServer, tmp_path: Path) -> None:
    other = toys.toy(tmp_path / "c", 3, layers=4, hidden=128, rope_theta=5e5)
    hub.repositories["somebody/second"] = content(other)
    with pytest.raises(StageError, match="rope"):
        list(preview(recipe(), "merged", tmp_path, hub=True))


def test_refusals_say_what_to_do(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.mood.token = TOKEN
    with pytest.raises(StageError, match="HF_TOKEN is not set"):
        open_remote("x", fetch())
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(StageError, match="has no access") as error:
        open_remote("x", fetch())
    assert "hf_wrong" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    open_remote("x", fetch())
    with pytest.raises(StageError, match="refused"):
        open_remote("x", fetch("third"))


def test_a_server_without_ranges_is_refused_before_weights_flow(hub: HubServer) -> None:
    hub.mood.ranges = False
    with pytest.raises(StageError, match="ignores byte ranges"):
        open_remote("x", fetch())


@pytest.mark.parametrize("prefix", [struct.pack("<Q", 2**31), struct.pack("<Q", 2**63), b"\1"])
def test_a_bad_header_is_an_error_and_not_fetched(prefix: bytes, hub: HubServer) -> None:
    hub.repositories["somebody/second"]["model.safetensors"] = prefix + b"\0" * 100 if len(prefix) == 8 else prefix
    with pytest.raises((ArtifactError, StageError), match=r"not a valid safetensors|bytes came|ignores"):
        open_remote("x", fetch("second"))
    assert sum(count for name, count in hub.sent if name == "model.safetensors") <= 8


@pytest.mark.parametrize("file", ["../a.safetensors", "/a.safetensors"])
def test_an_index_on_the_hub_may_name_only_files_beside_it(file: str, hub: HubServer) -> None:
    index = {"weight_map": {"lm_head.weight": file}}
    hub.repositories["somebody/first"]["model.safetensors.index.json"] = json.dumps(index).encode()
    with pytest.raises(ArtifactError, match="only plain"):
        open_remote("x", fetch())
