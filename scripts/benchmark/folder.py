"""Checks of a model folder before transformers opens it: no code from the folder may ever run."""

import json
from pathlib import Path
from typing import Any

from scripts.artifact.digest import ArtifactError
from scripts.artifact.foreign import asks_for_code
from scripts.artifact.stage import StageError
from scripts.artifact.tensors import model_files

# A vocabulary: may hold any word as a key, and is never asked for code.
_NOT_SETTINGS = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
_CODE_SUFFIXES = frozenset({".py", ".pyc", ".so"})


def check_model_folder(folder: Path) -> dict[str, Any]:
    """Return the content of `config.json` of a folder that holds weights, settings and nothing that runs.

    Raises:
        StageError: settings that ask for remote code, code files, no safetensors weights, or no readable config.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix in _CODE_SUFFIXES:
            raise StageError(f"{path}: code in a model folder is refused; remove it, only safetensors weights are read")
    for path in sorted(folder.glob("*.json")):
        if path.name not in _NOT_SETTINGS and not path.name.endswith(".index.json"):
            asked = asks_for_code(_read(path))
            if asked:
                raise StageError(
                    f"{path}: {asked}: asks for remote code, which is refused; "
                    "use a model whose architecture is part of transformers, and remove this key"
                )
    try:
        model_files(folder)
    except ArtifactError as error:
        raise StageError(f"{error}; benchmarks read safetensors only") from None
    config = _read(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise StageError(f"{folder / 'config.json'}: model_type: must be the name of an architecture of transformers")
    return config


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{path}: not readable JSON ({error}); rebuild or download the model again") from None
