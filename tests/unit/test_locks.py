"""The locks agree with one another, with what is asked for, and name no place to download from."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts.artifact.environment import FAMILY, pins
from scripts.recipe.base import STAGES
from scripts.recipe.envs import conda_file
from tests.conftest import ROOT

LOCKS = sorted(p.stem for p in (ROOT / "envs").glob("*.lock") if p.stem != "train-cuda")


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


def test_the_cuda_lock_is_the_training_lock_and_what_torch_needs_of_cuda() -> None:
    plain, cuda = pins(ROOT / "envs" / "train.lock"), pins(ROOT / "envs" / "train-cuda.lock")
    assert {name: version for name, version in plain.items() if cuda.get(name) != version} == {}
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in cuda.keys() - plain.keys())
    assert "nvidia-cudnn-cu13" in cuda


@pytest.mark.slow
def test_the_cuda_lock_resolves_without_being_installed(tmp_path: Path) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert uv, "uv is part of dev.lock"
    command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", "3.11"]
    lock, out = ROOT / "envs" / "train-cuda.lock", tmp_path / "out.lock"
    done = subprocess.run(
        [*command, "--python-platform", "x86_64-manylinux_2_28", "--output-file", out, lock],
        capture_output=True,
        text=True,
        check=False,
    )
    if any(text in done.stderr.lower() for text in ("dns error", "connect", "timed out", "failed to fetch")):
        pytest.skip(f"no package index from here: {done.stderr.strip()[:200]}")
    assert done.returncode == 0, done.stderr
    assert pins(out) == pins(lock), "the lock names all that it needs and nothing else"


@pytest.mark.parametrize("family", sorted(set(FAMILY.values())))
def test_conda_environments_hold_the_locks_versions(family: str) -> None:
    path = ROOT / "envs" / "conda" / f"{family}.yaml"
    assert path.read_text() == conda_file(family, ROOT), "run: make locks"
    *_, pip = yaml.safe_load(path.read_text())["dependencies"]
    assert dict(line.split("==") for line in pip["pip"]) == pins(ROOT / "envs" / f"{family}.lock")
    rules = "".join(p.read_text() for p in (ROOT / "rules").glob("*.smk"))
    assert f'"../envs/conda/{family}.yaml"' in rules


@pytest.mark.parametrize("name", ["Dockerfile", "atelier.def"])
def test_images_install_the_union(name: str) -> None:
    text = (ROOT / "envs" / name).read_text()
    assert "local.lock" in text and "pip install" in text
    assert "==" not in text, "versions stand in the locks only"


def test_locks_name_no_addresses_and_no_gpu_packages() -> None:
    for path in (ROOT / "envs" / f"{name}.lock" for name in LOCKS):
        text = path.read_text()
        assert "://" not in text
        assert not re.search(r"^(nvidia|cuda|triton)", text, re.M), (
            "torch pins its own CUDA packages where they are needed"
        )
