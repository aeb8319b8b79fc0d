"""R4, R7 in the schema: names that nothing can take for syntax, pins that are pins, no place for secrets or code."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.recipe.fetch import Fetch
from scripts.recipe.load import load_recipe
from scripts.recipe.problems import RecipeError
from tests.conftest import ROOT

NAMES = [
    "../up",
    "/etc/passwd",
    "a/b",
    "..",
    ".",
    ".hidden",
    "-rf",
    "--config",
    "a b",
    "a\nb",
    "a\n",
    "a\0b",
    "$(touch PWNED)",
    "`touch PWNED`",
    "a;touch PWNED",
    "a|b",
    "a&b",
    "{name}",
    "a'b",
    'a"b',
    "a\\b",
    "~root",
    "*",
    "a%2e",
    "ünï",
    "a\u202eb",
    "",
    "a" * 101,
]
TINY: dict[str, Any] = yaml.safe_load((ROOT / "tests/recipes/tiny.yaml").read_text())


def renamed(where: str, name: str) -> dict[str, Any]:
    """Return the tiny recipe with one thing renamed, everywhere that it is named."""
    recipe = copy.deepcopy(TINY)
    if where == "recipe":
        recipe["name"] = name
    elif where == "model":
        recipe["models"][name] = recipe["models"].pop("grafted")
        recipe["benchmark"]["models"] = [name]
    elif where == "mixture":
        recipe["mixtures"][name] = recipe["mixtures"].pop("chats")
        recipe["models"]["sapling"]["train"]["mixture"] = name
        recipe["models"]["seedling"]["create"]["tokenizer"]["mixture"] = name
    elif where == "suite":
        recipe["suites"][name] = recipe["suites"].pop("quick")
        recipe["benchmark"]["suites"] = [name]
    elif where == "task":
        recipe["suites"]["quick"]["tasks"][name] = recipe["suites"]["quick"]["tasks"].pop("word_order")
    elif where == "file":
        quick = recipe["suites"]["quick"]
        quick["fetch"]["files"][name] = quick["fetch"]["files"].pop("word_order.jsonl")
        quick["tasks"]["word_order"]["file"] = name
    else:
        source = yaml.safe_load((ROOT / "config/sources/demo-pippa.yaml").read_text())
        recipe["sources"] = {name: source}
        recipe["mixtures"]["chats"]["sources"][name] = {}
    return recipe


def load(recipe: dict[str, Any], folder: Path) -> None:
    """Load a recipe from a file."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True))
    load_recipe([path], ROOT)


@pytest.mark.parametrize("where", ["recipe", "model", "mixture", "suite", "task", "file", "source"])
def test_hostile_names_are_refused_wherever_a_name_stands(where: str, tmp_path: Path) -> None:
    load(renamed(where, "plain-name_1.x"), tmp_path)
    passed = []
    for name in NAMES:
        if where == "file" and name in {"a/b", "a" * 101}:
            continue  # a file may lie in a folder, and have a long name
        try:
            load(renamed(where, name), tmp_path)
        except RecipeError as error:
            assert "Traceback" not in str(error)
        else:
            passed.append(name)
    assert passed == []


@pytest.mark.parametrize(
    "revision",
    ["main", "v1.0", "0123456", "0123456789ABCDEF0123456789ABCDEF01234567", "0" * 39, "0" * 41, "0" * 40 + "\n", ""],
)
def test_a_revision_that_can_move_is_refused(revision: str) -> None:
    place = f"hub: owner/name@{revision}" if revision else "hub: owner/name"
    with pytest.raises(ValueError, match="40 lower-case hex digits"):
        Fetch(hub=place.removeprefix("hub: "), files={"config.json": None})


@pytest.mark.parametrize("key", ["hf_token", "token", "password", "api_key", "trust_remote_code", "use_auth_token"])
@pytest.mark.parametrize("place", [(), ("models", "sapling", "train"), ("benchmark",), ("suites", "quick", "fetch")])
def test_no_key_takes_secrets_or_remote_code(key: str, place: tuple[str, ...], tmp_path: Path) -> None:
    recipe = copy.deepcopy(TINY)
    inner = recipe
    for part in place:
        inner = inner[part]
    inner[key] = "hf_CANARY"
    with pytest.raises(RecipeError, match=f"{key}: unknown key") as caught:
        load(recipe, tmp_path)
    assert "hf_CANARY" not in str(caught.value)


def test_an_address_with_a_password_is_refused() -> None:
    with pytest.raises(ValueError, match="user name or password"):
        Fetch(url="https://me:hf_CANARY@example.invalid/x", files={"a": {"sha256": "0" * 64}})


@pytest.mark.parametrize("text", ["!!python/object/apply:os.mkdir [PWNED]", "!!python/name:os.system x", "&a [*a]"])
def test_yaml_makes_no_objects(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: x\ntitle: {text}\n")
    with pytest.raises(RecipeError):
        load_recipe([path], ROOT)
    assert not list(tmp_path.glob("PWNED")) and not (ROOT / "PWNED").exists()
