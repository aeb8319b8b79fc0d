"""Locks in the forms that clusters want: conda environment files made from `envs/*.lock`."""

import subprocess
from pathlib import Path

import yaml

from scripts.artifact.environment import FAMILY, pins

PYTHON = "3.11"
CONDA = Path("envs") / "conda"
_GPU = ("nvidia", "cuda", "triton")
"""What torch's CUDA build pins itself: only train-cuda.lock names it, so that a CPU machine installs none."""


def conda_file(family: str, root: Path) -> str:
    """Return the conda environment of one stage family: this Python, and the lock's versions through pip."""
    versions = [f"{name}=={version}" for name, version in pins(root / "envs" / f"{family}.lock").items()]
    # Inline, not `-r`: Snakemake copies the file elsewhere before conda reads it.
    content = {
        "name": f"atelier-{family}",
        "channels": ["conda-forge", "nodefaults"],
        "dependencies": [f"python={PYTHON}", "pip", {"pip": versions}],
    }
    return f"# Made from envs/{family}.lock by `make locks`.\n{yaml.safe_dump(content, sort_keys=False)}"


def compile_locks(root: Path) -> list[Path]:
    """Resolve every `envs/*.in` again, keeping what is locked where it still fits; return the files written.

    Needs `uv` and a package index. A family's lock is constrained by the union, so that both hold the same versions.
    """
    envs = root / "envs"
    inputs = sorted(path for path in envs.glob("*.in") if path.stem != "train-cuda")
    union = envs / "local.lock"
    _resolve([*inputs], union, union, gpu=False)
    for path in inputs:
        _resolve([path], path.with_suffix(".lock"), union, gpu=False)
    _resolve([envs / "train-cuda.in"], envs / "train-cuda.lock", envs / "train.lock", gpu=True)
    return [*sorted(envs.glob("*.lock")), *write_conda(root)]


def write_conda(root: Path) -> list[Path]:
    """Write one conda environment file a stage family; return their paths."""
    written = []
    (root / CONDA).mkdir(parents=True, exist_ok=True)
    for family in sorted(set(FAMILY.values())):
        path = root / CONDA / f"{family}.yaml"
        path.write_text(conda_file(family, root), encoding="utf-8")
        written.append(path)
    return written


def _resolve(inputs: list[Path], lock: Path, constraint: Path, gpu: bool) -> None:
    platform = ["--python-platform", "x86_64-manylinux_2_28"] if gpu else []
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", PYTHON, *platform]
    done = subprocess.run(
        [*command, *map(str, inputs), "--constraint", str(constraint)], capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if gpu or not line.startswith(_GPU)]
    lock.write_text("\n".join(lines) + "\n", encoding="utf-8")
