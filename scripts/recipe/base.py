"""Shared types of every recipe model: strict, frozen, documented by attribute docstrings."""

import hashlib
import json
import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

STAGES = ("download", "clean", "mix", "create", "pack", "train", "merge", "benchmark", "report", "release", "blind")
"""In order of the flow; each is a folder below `results/<recipe>/` and a program `python -m scripts.<stage>`."""

# Wildcards and file names: nothing that a shell, a URL or a path could read as syntax.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Ratio = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """A typed piece of a recipe: unknown keys are errors, values can't change after loading.

    Nothing is converted silently (strict): `true` is no number and "8" is no integer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Spec(Strict):
    """All that one job needs to know. Its identity is part of the artifact's key."""

    def identity(self) -> dict[str, object]:
        """Return the values that decide the artifact's bytes (no locations, no resources)."""
        return self.model_dump(mode="json")


def check_canonical(value: object, where: str = "value") -> None:
    """Raise unless `value` has exactly one canonical JSON form.

    Raises:
        ValueError: NaN or infinity, non-string keys, or a type other than JSON's own.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where}: key {key!r} is not a string")
            check_canonical(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_canonical(item, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value} has no canonical form")
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise ValueError(f"{where}: {type(value).__name__} has no canonical form")


def canonical_json(value: object) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, UTF-8, no NaN.

    Floats print as Python's shortest round-trip form, which every platform agrees on.
    """
    check_canonical(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def keyed_hash(*parts: object) -> int:
    """Return a 64-bit integer that depends on nothing but `parts`: the house's only randomness.

    Order of rows, number of shards and PYTHONHASHSEED can't influence it.
    """
    text = "\x1f".join(str(part) for part in parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
