"""Locked environments: each stage family has one lock, whose digest is part of the stage's key."""

import hashlib
import importlib.metadata
import os
import re
from pathlib import Path

from scripts.artifact.code import ROOT
from scripts.artifact.digest import ArtifactError

FAMILY = {
    "download": "data",
    "clean": "data",
    "mix": "data",
    "create": "train",
    "pack": "train",
    "train": "train",
    "merge": "train",
    "benchmark": "benchmark",
    "report": "report",
    "release": "release",
    "blind": "report",
}
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")
UNPINNED = "ATELIER_UNPINNED"


def lock_path(stage: str, root: Path = ROOT) -> Path:
    """Return the lock file of a stage's family."""
    return root / "envs" / f"{FAMILY[stage]}.lock"


def pins(path: Path) -> dict[str, str]:
    """Return {package: version} of a lock file."""
    found = (_PIN.match(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def stage_lock(stage: str, root: Path = ROOT) -> str:
    """Return the SHA-256 over the pins of a stage's lock; comments and order don't count."""
    text = "\n".join(f"{name}=={version}" for name, version in sorted(pins(lock_path(stage, root)).items()))
    return hashlib.sha256(text.encode()).hexdigest()


def check_environment(stage: str, root: Path = ROOT) -> dict[str, str]:
    """Compare the running interpreter's packages with the stage's lock: a key must not lie about them.

    Returns:
        {package: installed version} where the two differ; empty unless the check is switched off.

    Raises:
        ArtifactError: a locked package is missing or has another version, unless ATELIER_UNPINNED=1.
    """
    differing = {}
    for name, version in pins(lock_path(stage, root)).items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed = "missing"
        # A build for another device has a local version: 2.13.0+cpu is 2.13.0.
        if installed.split("+")[0] != version.split("+")[0]:
            differing[name] = installed
    if differing and os.environ.get(UNPINNED) != "1":
        name, found = next(iter(differing.items()))
        wanted = pins(lock_path(stage, root))[name]
        raise ArtifactError(
            f"{name}: found {found}, locked {wanted} in {lock_path(stage, root).name} ({len(differing)} differ); "
            f"run `make install`, or set {UNPINNED}=1 to go on, which is recorded"
        )
    return differing
