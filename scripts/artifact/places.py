"""Where artifacts lie: `results/<recipe>/<stage>/<name>/`."""

import os
from pathlib import Path

from scripts.artifact.digest import RECORD, SUMS, ArtifactError
from scripts.recipe.base import STAGES

WORK = ".work"
"""Folder of what is no artifact: `results/<recipe>/.work/<stage>/<key>/` and remembered digests."""


def results_root(folder: Path) -> Path:
    """Return `results/<recipe>` of an artifact folder: the parent of the folder named like its stage.

    Raises:
        ArtifactError: the path holds no stage's folder.
    """
    for parent in (folder, *folder.parents):
        if parent.name in STAGES:
            return parent.parent
    raise ArtifactError(f"{folder}: no stage's folder is in this path")


def artifact_folders(root: Path) -> list[Path]:
    """Return the folders at and below `root` that are, or claim to be, artifacts; drafts are none.

    What lies inside an artifact is its payload: a downloaded model may bring a SHA256SUMS of its own.
    """
    found, waiting = [], [str(root)]
    while waiting:
        folder = waiting.pop()
        if any(os.path.lexists(os.path.join(folder, name)) for name in (SUMS, RECORD)):
            found.append(Path(folder))
            continue
        try:
            with os.scandir(folder) as listing:
                inner = [entry.path for entry in listing if entry.is_dir(follow_symlinks=False) and _may_hold(entry)]
        except OSError as error:
            raise ArtifactError(f"{folder}: {error.strerror}; its artifacts can't be seen") from None
        waiting += inner
    return sorted(found)


def _may_hold(entry: "os.DirEntry[str]") -> bool:
    return entry.name != WORK and ".tmp." not in entry.name and not entry.name.endswith(".differs")
