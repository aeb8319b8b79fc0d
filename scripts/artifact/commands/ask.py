"""The commands `explain`, `diff` and `lineage`: what they print, as text or as JSON."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from scripts.artifact.code import ROOT
from scripts.artifact.differ import differences, entries
from scripts.artifact.digest import ArtifactError
from scripts.artifact.explain import explain as reasons_of
from scripts.artifact.lineage import lineage as origins_of
from scripts.artifact.places import results_root
from scripts.recipe.graph import Graph
from scripts.recipe.load import Loaded, load_recipe
from scripts.recipe.problems import RecipeError, nearest


def explain_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `explain`."""
    parser.add_argument("target", type=Path, help="folder of an artifact: results/<recipe>/<stage>/<name>")
    parser.add_argument("--recipe", type=Path, nargs="+", help="recipe files (default: config/<recipe>.yaml)")


lineage_arguments = explain_arguments


def diff_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `diff`."""
    parser.add_argument("a", type=Path, help="results/<recipe> or a lock file")
    parser.add_argument("b", type=Path, help="the same")


def explain(args: argparse.Namespace) -> int:
    """Say why an artifact would be made again, upstream first; 0 if it wouldn't, 1 if it would."""
    root = results_root(args.target.absolute())
    graph = Graph(recipe_of(args, root))
    name = args.target.absolute().relative_to(root).as_posix()
    stage, _, short = name.partition("/")
    if (stage, short) not in graph.jobs:
        known = ["/".join(filter(None, artifact)) for artifact in graph.jobs]
        raise ArtifactError(f"{name}: no artifact of recipe {graph.recipe.name!r}{nearest(name, known)}")
    reasons = reasons_of(graph, root, (stage, short))
    if args.json:
        print(json.dumps([asdict(reason) for reason in reasons], indent=1))
    elif not reasons:
        print(f"{name}: up to date")
    else:
        own = [reason for reason in reasons if reason.artifact == name]
        first = reasons[0]
        print(f"{name}: would be made again; first difference: {first}")
        if not own:
            print("its own key is as it was: if the artifacts above come out with the same bytes, it stays")
        for reason in reasons[1:40]:
            print(f"  {reason}")
        if len(reasons) > 40:
            print(f"  and {len(reasons) - 40} more (--json shows all)")
    return 1 if reasons else 0


def diff(args: argparse.Namespace) -> int:
    """Compare two results folders or locks, and name where they part; 0 if they are equal."""
    found = differences(args.a, args.b)
    if args.json:
        print(json.dumps([asdict(difference) for difference in found], indent=1))
        return 1 if found else 0
    for difference in found:
        print(f"{difference.artifact}: {difference.how}")
        for detail in difference.details:
            print(f"  {detail}")
    if found:
        print(f"the two part at {found[0].artifact}; {len(found)} artifacts differ")
    else:
        print(f"equal: {len(entries(args.a))} artifacts")
    return 1 if found else 0


def lineage(args: argparse.Namespace) -> int:
    """List all that an artifact was made from, with digests, licences and rejected rows; 1 if any is gone or other."""
    loaded: Loaded | None = None
    try:
        loaded = recipe_of(args, results_root(args.target.absolute()))
    except (RecipeError, ArtifactError) as error:
        print(f"without licences: {error}", file=sys.stderr)
    found = origins_of(args.target, loaded)
    if args.json:
        print(json.dumps([asdict(origin) for origin in found], indent=1))
    for origin in [] if args.json else found:
        state = "" if origin.found == "same" else f"  ({origin.found})"
        facts = f"  {'; '.join(origin.facts)}" if origin.facts else ""
        print(f"{'  ' * origin.depth}{origin.artifact}  {origin.value[:16]}{state}{facts}")
    return 1 if any(origin.found != "same" for origin in found) else 0


def recipe_files(args: argparse.Namespace, root: Path) -> list[Path]:
    """Return the files that `--recipe` names, else the one that the results folder is called after.

    Raises:
        ArtifactError: one is not there.
    """
    files: Sequence[Path] = args.recipe or [ROOT / "config" / f"{root.name}.yaml"]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise ArtifactError(f"{missing[0]}: no such recipe; name its files with --recipe")
    return list(files)


def recipe_of(args: argparse.Namespace, root: Path) -> Loaded:
    """Return the recipe of a results folder; see `recipe_files`.

    Raises:
        ArtifactError: it is another recipe's.
    """
    files = recipe_files(args, root)
    loaded = load_recipe(files, ROOT)
    if loaded.recipe.name != root.name:
        text = f"is recipe {loaded.recipe.name!r}, the results are of {root.name!r}"
        raise ArtifactError(f"{files[0]}: {text}; name the right files with --recipe")
    return loaded
