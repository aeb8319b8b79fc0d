"""The commands `import` and `export`: another tool's YAML in, mergekit's out."""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from scripts.artifact.code import ROOT
from scripts.artifact.stage import StageError
from scripts.merge.mergekit import exported, imported, settings_dict
from scripts.recipe.load import load_recipe
from scripts.recipe.merge import MergeSettings
from scripts.recipe.problems import RecipeError, from_validation, nearest
from scripts.recipe.yamlfile import YamlError, load_yaml


def main(arguments: list[str]) -> None:
    """Print YAML. Exits 1 with one message on bad input."""
    parser = argparse.ArgumentParser(prog="python -m scripts.merge", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    reading = commands.add_parser("import", help="BlockMerge_Gradient, mergekit linear or slerp -> a recipe's merge")
    reading.add_argument("file", type=Path)
    reading.add_argument("models", nargs="*", metavar="FIRST SECOND", help="their names in the recipe")
    writing = commands.add_parser("export", help="a recipe's merge -> mergekit YAML")
    writing.add_argument("file", type=Path, help="a recipe, or its `merge` table alone")
    writing.add_argument("layers", type=int, help="decoder layers of the models")
    writing.add_argument("--model", help="which merge of the recipe, where it has several")
    args = parser.parse_args(arguments)
    if args.command == "import" and len(args.models) not in (0, 2):
        parser.error("give both FIRST and SECOND, or none of them")
    try:
        if args.command == "import":
            data, _ = load_yaml(args.file)
            result: dict[str, Any] = {"merge": settings_dict(imported(data, args.models or None))}
        else:
            result = exported(merge_of(args.file, args.model), args.layers)
    except (YamlError, RecipeError) as error:  # these name the file themselves
        sys.exit(f"merge {args.command}: {error}")
    except StageError as error:
        sys.exit(f"merge {args.command}: {args.file}: {error}")
    print(yaml.safe_dump(result, sort_keys=False), end="")


def merge_of(path: Path, model: str | None = None) -> MergeSettings:
    """Return the merge that a file holds: a recipe's one merge, or its `model`, or a `merge` table without a recipe.

    Raises:
        YamlError, RecipeError: unreadable, or not what is needed.
        StageError: no merge, several without a choice, or none of this name.
    """
    data, places = load_yaml(path)
    if isinstance(data, dict) and isinstance(data.get("models"), dict):
        recipe = load_recipe([path], ROOT).recipe
        merges = {name: row.merge for name, row in recipe.models.items() if row.merge is not None}
        known = ", ".join(merges) or "none"
        if model is not None and model not in merges:
            raise StageError(f"{model!r} is no merge of this recipe; merges: {known}{nearest(model, merges)}")
        if model is None and len(merges) != 1:
            raise StageError(
                f"needs --model NAME, one of its merges: {known}" if merges else "this recipe merges nothing"
            )
        return merges[model or next(iter(merges))]
    prefix = ("merge",) if isinstance(data, dict) and "merge" in data else ()
    table = data["merge"] if prefix else data
    if not isinstance(table, dict):
        found = "is empty" if table is None else f"holds a {type(table).__name__}"
        raise StageError(f"{found}; a recipe, or the `merge` table of one is needed")
    try:
        return MergeSettings.model_validate(table)
    except ValidationError as error:
        raise RecipeError(from_validation(error, MergeSettings, path, places, prefix)) from None
