"""Checks of a model folder before transformers opens it: no code from the folder may ever run."""

import json
from pathlib import Path
from typing import Any

from scripts.artifact.digest import ArtifactError
from scripts.artifact.foreign import foreign_code
from scripts.artifact.stage import StageError
from scripts.artifact.tensors import model_files, read_header


def check_model_folder(folder: Path) -> dict[str, Any]:
    """Return the content of `config.json` of a folder that holds weights, settings and nothing that runs.

    Raises:
        StageError: settings that ask for remote code, code files, no valid safetensors weights, or no readable config.
    """
    if refused := foreign_code(folder):
        raise StageError(refused)
    try:
        for path in model_files(folder):
            read_header(path)
    except ArtifactError as error:
        raise StageError(f"{error}; benchmarks read safetensors only") from None
    config = _read(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise StageError(f"{folder / 'config.json'}: model_type: must be the name of an architecture of transformers")
    return config


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StageError(f"{path}: not readable JSON ({error}); rebuild or download the model again") from None
