"""What the README shows is what happens."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipeline.bench import Bench

README = (ROOT / "README.md").read_text()


def shown(command: str) -> list[str]:
    """Return the lines that the README shows below `$ command`."""
    block = README.split(f"$ {command}\n")[1].split("```")[0]
    return [line for line in block.splitlines() if line and line != "..."]


def test_every_make_target_exists_and_is_described() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make ([a-z-]+)", README, re.M)) | set(re.findall(r"`make ([a-z-]+)`", README)):
        assert re.search(rf"^{target}:.*## ", makefile, re.M), f"make {target}"


def test_every_file_that_is_named_exists() -> None:
    for name in re.findall(r"`((?:docs|config|profiles|locks|envs)/[\w./-]+)`", README):
        assert (ROOT / name).exists() or name == "config/mine.yaml", name


def test_the_profile_run_prints_what_is_shown(tmp_path: Path) -> None:
    clone = Bench.fresh(tmp_path / "clone").folder
    command = "snakemake -n --profile slurm-h100"
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=clone, capture_output=True, text=True, check=False, timeout=120
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    for line in shown(command):
        assert line in output, line


def test_one_file_as_a_target_prints_what_is_shown(built: Bench) -> None:
    (line,) = shown("snakemake --cores 2 results/demo/merge/tiny-mythalion/SHA256SUMS")
    assert line in built.run("results/tiny/merge/grafted/SHA256SUMS").output


@pytest.mark.parametrize("name", ["config/demo.yaml", "config/mythalion-13b.yaml", "tests/recipes/tiny.yaml"])
def test_recipes_pass_the_check_that_the_readme_names(name: str) -> None:
    command = [sys.executable, "-m", "scripts.recipe", "check", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK" in done.stdout


def test_the_source_of_the_readme_is_valid(tmp_path: Path) -> None:
    """The ten lines for own data, with a real file behind them."""
    import json

    import yaml

    (block,) = re.findall(r"```yaml\n(sources:\n.*?)```", README, re.S)
    chats = [
        {"id": str(i), "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": f"Hello {i}"}]}
        for i in range(40)
    ]
    (tmp_path / "chats.json").write_text(json.dumps(chats))
    pinned = subprocess.run(
        [sys.executable, "-m", "scripts.recipe", "pin", str(tmp_path), "chats.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    digest = re.search(r"[0-9a-f]{64}", pinned.stdout)
    assert digest is not None, pinned.stdout
    overlay = yaml.safe_load(block.replace("...", digest[0]).replace("/data/chats", str(tmp_path)))
    overlay["mixtures"] = {"chats": {"sources": {"my-chats": {}}}}
    bench = Bench.fresh(tmp_path / "mine")
    (bench.folder / "mine.yaml").write_text(yaml.safe_dump(overlay))
    bench.overlays = ("mine.yaml",)
    run = bench.run("results/tiny/mix/chats/SHA256SUMS")
    assert run.code == 0, run.output
    assert "clean my-chats" in run.jobs
