"""One module for each raw format; each turns the files of a download into typed episodes or refusals."""

import importlib
from pathlib import Path

from scripts.clean.episode import Outcomes
from scripts.clean.wording import Wording
from scripts.recipe.clean import Adapter


def read_source(spec: Adapter, folder: Path, wording: Wording) -> Outcomes:
    """Yield every row of the download in `folder`, as episodes or as refusals.

    Args:
        spec: the adapter with its settings; its module has the same name and a function `read`.
        folder: the download artifact.
        wording: chooses the texts that adapters add, and knows which defects of the original to reproduce.

    Raises:
        StageError: the folder holds no file of this format.
    """
    module = importlib.import_module(f"scripts.clean.adapters.{spec.adapter}")
    outcomes: Outcomes = module.read(spec, folder, wording)
    return outcomes
