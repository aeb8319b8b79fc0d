"""`python -m scripts.recipe check|name|docs|locks|pin|import-axolotl`: recipes without running anything."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from scripts.artifact.code import ROOT
from scripts.artifact.digest import sha256_file
from scripts.recipe.axolotl import as_notes, as_yaml, import_axolotl
from scripts.recipe.docs import PATH, document
from scripts.recipe.envs import compile_locks
from scripts.recipe.faults import lacking_here
from scripts.recipe.fetch import DownloadSpec, RelativePath
from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe, recipe_name
from scripts.recipe.problems import PATH_WORDS, RecipeError
from scripts.recipe.yamlfile import YamlError, load_yaml


def main() -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.recipe")
    commands = parser.add_subparsers(required=True, metavar="check|name|docs|locks|pin|import-axolotl")
    check = commands.add_parser("check", help="print OK or every problem of recipe files")
    check.add_argument(
        "files", nargs="+", type=Path, help="a file without models or name is laid over the one before it"
    )
    check.set_defaults(run=lambda args: max(map(_check, layered(args.files))))
    name = commands.add_parser("name", help="print a recipe's name, which its folder below results/ has too")
    name.add_argument("files", nargs="+", type=Path)
    name.set_defaults(run=_name)
    docs = commands.add_parser("docs", help=f"write {PATH} from the typed models")
    docs.set_defaults(run=_docs)
    locks = commands.add_parser("locks", help="resolve envs/*.in again and write every lock and conda environment")
    locks.set_defaults(run=_locks)
    pin = commands.add_parser("pin", help="print the `files` lines of a recipe for files of a folder")
    pin.add_argument("folder", type=Path)
    pin.add_argument("files", nargs="+", metavar="FILE", help="path below FOLDER")
    pin.set_defaults(run=_pin)
    axolotl = commands.add_parser("import-axolotl", help="print an axolotl file as the training part of a recipe")
    axolotl.add_argument("file", type=Path, help="axolotl's YAML")
    axolotl.add_argument("--model", default="my-model", help="name of the trained model (default: %(default)s)")
    axolotl.add_argument("--mixture", default="my-mixture", help="name of its mixture (default: %(default)s)")
    axolotl.add_argument("--preset", default="corrected", choices=("corrected", "as-released"))
    axolotl.add_argument("--gpus", type=int, default=8, help="processes (default: %(default)s)")
    axolotl.set_defaults(run=_import_axolotl)
    args = parser.parse_args()
    return int(args.run(args))


def layered(paths: Sequence[Path]) -> list[list[Path]]:
    """Return the recipes among the files: each whole one begins a recipe, any other is laid over what is before it."""
    recipes: list[list[Path]] = []
    for path in paths:
        try:
            data, _ = load_yaml(path)
        except YamlError:
            data = None
        partial = isinstance(data, dict) and not {"name", "models"} <= data.keys()
        if partial and recipes:
            recipes[-1].append(path)
        else:
            recipes.append([path])
    return recipes


def _check(paths: list[Path]) -> int:
    try:
        graph = Graph(load_recipe(paths, ROOT))
    except RecipeError as error:
        print(error)
        return 1
    path = " + ".join(map(str, paths))
    print(f"{path}: OK, {len(graph.jobs)} artifacts")
    for name, model in graph.recipe.models.items():
        if model.download is not None and not model.download.pinned:
            print(f"{path}: models.{name}.download refuses to run until it is pinned: {model.download.unconfirmed}")
    for name, data in graph.loaded.datasets.items():
        if not data.fetch.pinned:
            print(f"{path}: data set {name} refuses to download until it is pinned: {data.fetch.unconfirmed}")
    for name in graph.loaded.missing_sources:
        print(f"{path}: goes on without the private source {name}")
    for job in graph.of_stage("download"):
        for lack in lacking_here(job.spec.fetch) if isinstance(job.spec, DownloadSpec) else ():
            print(f"{path}: download {job.name}: {lack}")
    return 0


def _name(args: argparse.Namespace) -> int:
    try:
        print(recipe_name(args.files, ROOT))
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _docs(args: argparse.Namespace) -> int:
    (ROOT / PATH).write_text(document(ROOT), encoding="utf-8")
    print(f"wrote {PATH}")
    return 0


def _locks(args: argparse.Namespace) -> int:
    for path in compile_locks(ROOT):
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def _pin(args: argparse.Namespace) -> int:
    """Print as YAML what `Fetch.files` wants; files in the order given."""
    rows = []
    for given in args.files:
        path = args.folder / given
        try:
            name = os.path.normpath(path.absolute())
            name = Path(name).relative_to(os.path.normpath(args.folder.absolute())).as_posix()
            TypeAdapter(RelativePath).validate_python(name)
            digest, size = sha256_file(path), path.stat().st_size
        except OSError as error:
            print(f"{path}: can't be read: {error.strerror}", file=sys.stderr)
            return 1
        except ValidationError:
            print(f"{path}: no recipe can name it; needed: {PATH_WORDS}", file=sys.stderr)
            return 1
        except ValueError:
            print(f"{path}: lies outside {args.folder}; a recipe names files below its folder", file=sys.stderr)
            return 1
        rows.append(f"  {name}: {{sha256: {digest}, bytes: {size}}}")
    print("files:", *rows, sep="\n")
    return 0


def _import_axolotl(args: argparse.Namespace) -> int:
    """Print the recipe's part to stdout and the fate of each key to stderr; 1 where a key could not be carried over."""
    try:
        imported = import_axolotl(args.file, mixture=args.mixture, preset=args.preset, gpus=args.gpus)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(as_yaml(args.model, imported), end="")
    print(as_notes(imported), file=sys.stderr)
    if imported.lost:
        print(f"{args.file}: not carried over: {', '.join(imported.lost)}", file=sys.stderr)
    return 1 if imported.lost else 0


if __name__ == "__main__":
    sys.exit(main())
