"""A recipe cut down to one model: what `recipe.yaml` of a release holds, and anyone can run."""

import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml
from pydantic import BaseModel

from scripts.recipe.load import Loaded

HUB_KEYS = ("owner", "private")
"""Where a release is uploaded to: no byte depends on it, so no cut recipe names it."""


def cut_recipe(loaded: Loaded, model: str, models: Collection[str], mixtures: Collection[str]) -> str:
    """Return the YAML of a recipe that makes `model` from the same jobs as the whole recipe.

    Sources are written out, as their files may change; suites keep their names unless the recipe itself defines them,
    since all of them together (100 kB for the leaderboards) would not fit into one command line.

    Args:
        loaded: the whole recipe.
        model: the model to keep.
        models: it and all models it is made from.
        mixtures: mixtures of its lineage.
    """
    recipe = loaded.recipe
    whole = _plain(recipe)
    release = whole.get("release", {})
    used = [name for mixture in mixtures for name in recipe.mixtures[mixture].sources]
    # A row is refused that quotes a benchmark of the recipe, so all suites stay, also if this model isn't measured.
    measured = [name for name in recipe.benchmark.models if name == model]
    cut: dict[str, Any] = {
        **{
            key: whole[key]
            for key in ("name", "title", "seed", "compat", "decontamination", "published")
            if key in whole
        },
        "sources": {name: _plain(loaded.sources[name]) for name in dict.fromkeys(used)},
        "suites": whole.get("suites", {}),
        "datasets": whole.get("datasets", {}),
        "mixtures": {name: body for name, body in whole.get("mixtures", {}).items() if name in mixtures},
        "models": {name: body for name, body in whole["models"].items() if name in models},
        "benchmark": {**whole.get("benchmark", {}), "models": measured},
        # First, whether the recipe named models or not: a cut of this cut must be the same text.
        "release": {"models": [model], **{k: v for k, v in release.items() if k not in {*HUB_KEYS, "models"}}},
    }
    _hide_folders(cut, "")
    kept = {key: value for key, value in cut.items() if value not in ({}, [], "")}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=120)


def _plain(model: BaseModel) -> dict[str, Any]:
    """Return what was written of a model (presets included), not the defaults of this version."""
    return model.model_dump(mode="json", exclude_unset=True)


def _hide_folders(value: Mapping[str, Any], name: str) -> None:
    """Put a variable in the place of each absolute folder: where a file lies on one machine is nobody's business."""
    for key, inner in value.items():
        if not isinstance(inner, Mapping):
            continue
        folder = inner.get("folder")
        # `download` holds its own fetch; `fetch` belongs to the source, suite or data set above it.
        owner = name if key in {"fetch", "download"} else key
        if isinstance(folder, str) and (folder.startswith("~") or PurePosixPath(folder).is_absolute()):
            inner["folder"] = f"${re.sub(r'[^A-Za-z0-9]', '_', owner).upper()}_FOLDER"  # type: ignore[index]
        _hide_folders(inner, owner)
