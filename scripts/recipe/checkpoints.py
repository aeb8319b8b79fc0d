"""Checkpoints that a training keeps: where they lie in its artifact, and how a candidate names one."""

import re
from typing import Annotated

from pydantic import AfterValidator

FOLDER = "checkpoints"
"""Folder of a training's artifact; each folder in it is a whole Hugging Face model."""
_CANDIDATE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})(?:@([1-9][0-9]{0,8}))?")


def _checked(name: str) -> str:
    if _CANDIDATE.fullmatch(name) is None:
        raise ValueError(
            f"found {name[:120]!r}; allowed: the name of a model, or MODEL@STEP for a checkpoint that its training "
            "keeps, such as my-model@200"
        )
    return name


Candidate = Annotated[str, AfterValidator(_checked)]
"""A model of the table, or `MODEL@STEP`."""


def candidate(model: str, step: int | None) -> str:
    """Return the name of a model, or of its checkpoint after `step`."""
    return model if step is None else f"{model}@{step}"


def parts(name: str) -> tuple[str, int | None]:
    """Return (model, step) of a candidate; the step is None for the model itself."""
    model, _, step = name.partition("@")
    return model, int(step) if step else None


def checkpoint_folder(step: int) -> str:
    """Return the folder of the checkpoint after `step`, relative to the training's artifact."""
    return f"{FOLDER}/step-{step:08d}"


def in_checkpoint(file: str) -> bool:
    """Return whether a payload file belongs to a checkpoint, not to the model that was trained."""
    return file.startswith(f"{FOLDER}/")
