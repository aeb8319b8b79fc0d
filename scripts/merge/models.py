"""One input model as its headers tell it: config, and where every tensor lies. No weight is read here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.artifact.foreign import foreign_code
from scripts.artifact.stage import StageError
from scripts.artifact.tensors import TensorEntry, model_files, read_header
from scripts.merge.layout import INV_FREQ
from scripts.merge.shards import INDEX

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
        StageError: no readable config, files or settings that bring foreign code (rule R3), or an index that
            disagrees with the shards' own headers.
        ArtifactError: an invalid safetensors file or index (rule R5).
    """
    config = read_json(folder / "config.json")
    if refused := foreign_code(folder):
        raise StageError(f"model {name!r}: {refused}")
    headers = [(path, read_header(path)) for path in model_files(folder)]
    index = folder / INDEX
    weight_map = read_json(index)["weight_map"] if index.exists() else None
    return assemble(name, folder, config, headers, weight_map)


def assemble(
    name: str,
    folder: Path,
    config: dict[str, Any],
    headers: Sequence[tuple[Path, Sequence[TensorEntry]]],
    weight_map: Mapping[str, Any] | None,
) -> ModelFolder:
    """Put a model together from its parts, wherever they were read.

    Raises:
        StageError: a tensor in two files, or an index that disagrees with the headers.
    """
    located: dict[str, Located] = {}
    for path, entries in headers:
        for entry in entries:
            if entry.name in located:
                raise StageError(f"{path}: tensor {entry.name!r} is in {located[entry.name].path.name} too; keep one")
            located[entry.name] = Located(path, entry)
    for tensor in sorted({*(weight_map or ()), *located} if weight_map is not None else ()):
        says, found = (weight_map or {}).get(tensor), located[tensor].path.name if tensor in located else None
        if says != found:
            raise StageError(
                f"{folder / INDEX}: says tensor {tensor!r} is in {says or 'no file'}; "
                f"the headers say {found or 'no file'}"
            )
    rotary = tuple(n for n in located if n.endswith(INV_FREQ))
    return ModelFolder(name, folder, config, {n: at for n, at in located.items() if n not in rotary}, rotary)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a model folder.

    Raises:
        StageError: unreadable, or not an object.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StageError(f"{path}: cannot be read as JSON ({error}); fetch or build the model again") from None
    return parse_json(content, path)


def parse_json(content: bytes, path: Path) -> dict[str, Any]:
    """As `read_json`, from the bytes of the file."""
    try:
        data = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path}: cannot be read as JSON ({error}); fetch or build the model again") from None
    if not isinstance(data, dict):
        raise StageError(f"{path}: holds a {type(data).__name__}; a JSON object is needed")
    return data
