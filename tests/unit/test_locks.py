"""The locks agree with one another, with what is asked for, and name no place to download from."""

import re

import pytest

from scripts.artifact.environment import FAMILY, pins
from scripts.recipe.base import STAGES
from tests.conftest import ROOT

LOCKS = sorted(p.stem for p in (ROOT / "envs").glob("*.lock"))


def test_every_stage_has_a_lock() -> None:
    assert set(FAMILY) == set(STAGES)
    assert {*FAMILY.values(), "local", "dev"} == set(LOCKS)


@pytest.mark.parametrize("name", [n for n in LOCKS if n != "local"])
def test_family_locks_are_part_of_the_union(name: str) -> None:
    union, family = pins(ROOT / "envs" / "local.lock"), pins(ROOT / "envs" / f"{name}.lock")
    assert family
    assert {k: v for k, v in family.items() if union.get(k) != v} == {}


@pytest.mark.parametrize("name", [n for n in LOCKS if n != "local"])
def test_locks_hold_what_is_asked_for(name: str) -> None:
    asked = [line.split("#")[0].strip() for line in (ROOT / "envs" / f"{name}.in").read_text().splitlines()]
    locked = pins(ROOT / "envs" / f"{name}.lock")
    for line in filter(None, asked):
        package, _, version = line.partition("==")
        key = re.sub(r"\[.*", "", package).lower().replace("_", "-")
        assert key in locked
        assert not version or locked[key] == version


def test_locks_name_no_addresses_and_no_gpu_packages() -> None:
    for path in (ROOT / "envs").glob("*.lock"):
        text = path.read_text()
        assert "://" not in text
        assert not re.search(r"^(nvidia|cuda|triton)", text, re.M), (
            "torch pins its own CUDA packages where they are needed"
        )
