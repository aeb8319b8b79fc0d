"""One module for each raw format; each turns the files of a download into typed episodes or refusals."""

import importlib
from pathlib import Path

from scripts.clean.episode import Outcomes
from scripts.recipe.clean import Adapter


def read_source(spec: Adapter, folder: Path, seed: int) -> Outcomes:
    """Yield every row of the download in `folder`, as episodes or as refusals.

    Args:
        spec: the adapter with its settings; its module has the same name and a function `read`.
        folder: the download artifact.
        seed: the recipe's seed, for wording that is chosen at random.

    Raises:
        StageError: the folder holds no file of this format.
    """
    module = importlib.import_module(f"scripts.clean.adapters.{spec.adapter}")
    outcomes: Outcomes = module.read(spec, folder, seed)
    return outcomes
