"""Preview: the ratio of every tensor of a recipe's merges, from headers or config numbers alone."""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from scripts.artifact.digest import ArtifactError
from scripts.artifact.stage import StageError
from scripts.merge.checks import check_config, check_pair, check_tensors
from scripts.merge.layout import LlamaShapes, gradient_keys, llama_tensors
from scripts.merge.models import ModelFolder, open_model
from scripts.merge.ratios import Blend, assign
from scripts.merge.remote import open_remote
from scripts.recipe.load import load_recipe
from scripts.recipe.merge import MergeSettings
from scripts.recipe.models import Recipe
from scripts.recipe.problems import RecipeError, nearest

ROOT = Path(__file__).resolve().parents[2]
# Decoder layers of the Llama-2 family, by the size in a model's name.
_LAYERS = {"7b": 32, "13b": 40, "70b": 80}
_IN_LAYER = re.compile(r"^model\.layers\.(\d+)\.(.+?)(?:\.weight)?$")
_SHORT = {"input_layernorm": "norm 1", "post_attention_layernorm": "norm 2"}


def main(arguments: list[str]) -> None:
    """Print the ratio table of one merge of a recipe, or of all. Exits 1 with one message on bad input."""
    parser = argparse.ArgumentParser(prog="python -m scripts.merge show", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("model", nargs="?", help="a merge of the recipe; all of them without it")
    parser.add_argument("--layers", type=int, help="decoder layers, where neither files nor the recipe tell")
    parser.add_argument(
        "--hub",
        action="store_true",
        help="read config, index and headers of hub models (never weights) over the network",
    )
    args = parser.parse_args(arguments)
    try:
        recipe = load_recipe([args.recipe], ROOT).recipe
        for name in _chosen(recipe, args.model):
            print(f"{name}:")
            for line in preview(recipe, name, ROOT / "results" / recipe.name, args.layers, args.hub):
                print(f"  {line}")
    except (RecipeError, StageError, ArtifactError) as error:
        sys.exit(f"merge show: {error}")


def _chosen(recipe: Recipe, model: str | None) -> list[str]:
    merges = [name for name, row in recipe.models.items() if row.merge is not None]
    if model is not None and model not in merges:
        known = ", ".join(merges) or "none"
        raise StageError(f"{model!r} is no merge of this recipe; merges: {known}{nearest(model, merges)}")
    if not merges:
        raise StageError("this recipe merges nothing")
    return merges if model is None else [model]


def preview(recipe: Recipe, name: str, results: Path, layers: int | None = None, hub: bool = False) -> Iterable[str]:
    """Return the lines of one merge's table: model, method, source of the names, then every tensor.

    Args:
        recipe: a checked recipe.
        name: one of its merges.
        results: folder that holds `<stage>/<model>/` where something was built already.
        layers: decoder layers of a model that only exists on paper.
        hub: whether the network may be asked for headers of models that are not here.
    """
    settings = recipe.models[name].merge
    assert settings is not None
    plain = MergeSettings.model_validate(settings.model_dump())
    found = [_headers(recipe, parent, results, hub) for parent in plain.models]
    opened = [pair for pair in found if pair is not None]
    if len(opened) == 2:
        (first, _), (second, _) = opened
        for model in (first, second):
            check_config(model)
        check_pair(first, second, plain.vocabulary)
        tensors, count = check_tensors(first), int(first.config["num_hidden_layers"])
        check_tensors(second)
        source = " and ".join(words for _, words in opened)
    else:
        count = layers or _layers_of(recipe, name) or 40
        tensors = llama_tensors(LlamaShapes(count, 8, 8, 1, 1, 8, 8))
        source = f"a Llama of {count} layers (nothing built yet)"
    blends = assign(plain, gradient_keys(tensors, plain.legacy_inv_freq), count)
    ours, theirs = plain.models
    return [
        f"{plain.method} of {ours} and {theirs}; r = share of {theirs}; names from {source}",
        *table({n: blends[n] for n in tensors}),
    ]


def _headers(recipe: Recipe, name: str, results: Path, hub: bool) -> tuple[ModelFolder, str] | None:
    """Return a model's headers and where they are from, or nothing if it isn't here and nobody may ask for it.

    A fine-tune that isn't built has its base's tensors, a merge those of its first model.
    """
    model = recipe.models[name]
    folder = results / model.kind / name
    if (folder / "config.json").is_file():
        return open_model(name, folder), f"headers of {name}"
    if model.download is not None and model.download.hub is not None and hub:
        opened, words = open_remote(name, model.download)
        return opened, f"headers of {words}"
    parent = model.train.base if model.train is not None else model.merge.models[0] if model.merge is not None else None
    found = None if parent is None else _headers(recipe, parent, results, hub)
    return None if found is None else (replace(found[0], name=name), found[1])


def _layers_of(recipe: Recipe, name: str) -> int | None:
    """Follow a model to where its depth is known: a created architecture, or the size in a download's name."""
    model = recipe.models[name]
    if model.create is not None:
        return model.create.architecture.num_hidden_layers
    if model.train is not None:
        return _layers_of(recipe, model.train.base)
    if model.merge is not None:
        return _layers_of(recipe, model.merge.models[0])
    return next((n for size, n in _LAYERS.items() if re.search(rf"(?<!\d){size}", name.lower())), None)


def table(blends: Mapping[str, Blend]) -> list[str]:
    """Return one line a layer with a column a projection, and one line for each other tensor."""
    layers: dict[int, dict[str, Blend]] = {}
    lines = []
    for name, blend in blends.items():
        match = _IN_LAYER.match(name)
        if match is None:
            lines.append(f"{name:<34}{blend.ratio:8.5f}  {blend.operation or '(first model)'}")
        else:
            layers.setdefault(int(match[1]), {})[match[2]] = blend
    columns = list(dict.fromkeys(part for row in layers.values() for part in row))
    if columns:
        titles = [_SHORT.get(c, c.split(".")[-1].removesuffix("_proj")) for c in columns]
        lines.append(f"{'layer':<7}" + "".join(f"{title:>9}" for title in titles))
    for layer, row in layers.items():
        lines.append(f"{layer:<7}" + "".join(f"{row[c].ratio:9.5f}" if c in row else " " * 9 for c in columns))
    return [*lines, f"{len(blends)} tensors"]
