"""One input model as its headers tell it: config, and where every tensor lies. No weight is read here."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError
from scripts.artifact.tensors import TensorEntry, model_files, read_header
from scripts.merge.layout import INV_FREQ

FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Weight formats that a merge reads and writes: name in a header, name in a config."""


@dataclass(frozen=True)
class Located:
    """A tensor and the file that holds it."""

    path: Path
    entry: TensorEntry


@dataclass(frozen=True)
class ModelFolder:
    """A Hugging Face model folder, headers only."""

    name: str
    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Located]
    rotary: tuple[str, ...]
    """Rotary buffers of old checkpoints: transformers recomputes them from the config, a merge leaves them out."""


def open_model(name: str, folder: Path) -> ModelFolder:
    """Read config and headers.

    Raises:
        StageError: no readable config, or an index that disagrees with the shards' own headers.
        ArtifactError: an invalid safetensors file or index (rule R5).
    """
    config = read_json(folder / "config.json")
    located: dict[str, Located] = {}
    for path in model_files(folder):
        for entry in read_header(path):
            if entry.name in located:
                raise StageError(f"{path}: tensor {entry.name!r} is in {located[entry.name].path.name} too; keep one")
            located[entry.name] = Located(path, entry)
    _check_index(folder, located)
    rotary = tuple(n for n in located if n.endswith(INV_FREQ))
    return ModelFolder(name, folder, config, {n: at for n, at in located.items() if n not in rotary}, rotary)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a model folder.

    Raises:
        StageError: unreadable, or not an object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StageError(f"{path}: cannot be read as JSON ({error}); fetch or build the model again") from None
    if not isinstance(data, dict):
        raise StageError(f"{path}: holds a {type(data).__name__}; a JSON object is needed")
    return data


def _check_index(folder: Path, located: dict[str, Located]) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    weight_map = read_json(index)["weight_map"]
    for name in sorted(set(weight_map) | set(located)):
        says, found = weight_map.get(name), located[name].path.name if name in located else None
        if says != found:
            raise StageError(
                f"{index}: says tensor {name!r} is in {says or 'no file'}; the headers say {found or 'no file'}"
            )
