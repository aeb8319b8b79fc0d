"""The commands `gc`, `store` and `replay`."""

import argparse
import os
from collections import Counter
from pathlib import Path

from scripts.artifact.code import ROOT
from scripts.artifact.commands.output import say
from scripts.artifact.digest import ArtifactError
from scripts.artifact.gc import Garbage, in_results, in_store, keys_of, remove
from scripts.artifact.store import LAYOUT, QUARANTINE, STORE, Store


def gc_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gc`."""
    parser.add_argument("place", type=Path, help="results/<recipe>, or a shared store")
    parser.add_argument("--keep", type=Path, nargs="*", default=[], help="more locks or results whose keys stay")
    parser.add_argument("--recipe", type=Path, nargs="+", help="recipe files (default: config/<recipe>.yaml)")
    parser.add_argument("--unfinished", action="store_true", help="also work of jobs that have not finished")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="list only (this is the default)")
    what.add_argument("--delete", action="store_true", help="remove what is listed")


def gc(args: argparse.Namespace) -> int:
    """List what nobody needs, and remove it if asked to."""
    keys = keys_of([*sorted((ROOT / "locks").glob("*.lock")), *args.keep])
    if (args.place / LAYOUT).is_dir():
        found = list(in_store(Store(args.place.absolute()), keys))
    else:
        found = _of_results(args, keys)
    rows = [{"path": str(g.path), "reason": g.reason, "bytes": g.bytes} for g in found]
    total = sum(g.bytes for g in found)
    for garbage in found if args.delete else []:
        remove(garbage)
    lines = [f"{row['bytes']:>15,}  {row['path']}: {row['reason']}" for row in rows]
    done = "removed" if args.delete else "can be removed (--delete removes it)"
    lines.append(f"{len(found)} things, {total:,} bytes: {done}" if found else "nothing to remove")
    say(args, {"deleted": args.delete, "bytes": total, "found": rows}, lines)
    return 1 if found and not args.delete else 0


def _of_results(args: argparse.Namespace, keys: set[str]) -> list[Garbage]:
    from scripts.artifact.commands.ask import recipe_of
    from scripts.artifact.guard import guard
    from scripts.recipe.graph import Graph, artifact_path

    root = args.place.absolute()
    if not root.is_dir():
        raise ArtifactError(f"{args.place}: no such folder")
    alive = guard(root.parent.parent)
    if alive:
        raise ArtifactError("\n".join(alive))
    wanted = {artifact_path(artifact) for artifact in Graph(recipe_of(args, root)).jobs}
    return list(in_results(root, wanted, keys, args.unfinished))


def store_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `store`."""
    parser.add_argument("folder", type=Path, nargs="?", help=f"the store (default: ${STORE})")
    parser.add_argument("--deep", action="store_true", help="read every byte; damaged entries go to quarantine")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="files read side by side")


def store(args: argparse.Namespace) -> int:
    """Say what a store holds, and whether it is sound."""
    named = args.folder or os.environ.get(STORE)
    folder = Path(named) if named else Path()
    if not named or not folder.is_dir() or (any(folder.iterdir()) and not (folder / LAYOUT).is_dir()):
        raise ArtifactError(f"{named or STORE}: no store there; name its folder, or set {STORE}")
    shelf = Store(folder.absolute())
    faults, stages, size = [], Counter[str](), 0
    for entry in list(shelf.entries()):
        fault, record = shelf.examine(entry, args.deep, args.threads)
        faults += [fault] if fault else []
        stages[str(record.get("stage", "damaged"))] += 1
        size += int(record.get("bytes", 0))
    quarantined = sorted(str(path) for path in (shelf.root / QUARANTINE).glob("*"))
    value = {"entries": stages.total(), "bytes": size, "stages": stages, "faults": faults, "quarantine": quarantined}
    lines = [*faults, *(f"in quarantine: {path}" for path in quarantined)]
    lines += [f"{number:>7}  {stage}" for stage, number in stages.items()]
    lines.append(f"{stages.total()} entries, {size:,} bytes" + (f", {len(faults)} damaged" if faults else ""))
    say(args, value, lines)
    return 1 if faults else 0


def replay_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `replay`."""
    parser.add_argument("results", type=Path, help="results/<recipe>")
    parser.add_argument("-n", "--number", type=int, default=3, help="jobs to draw (3)")
    parser.add_argument("--seed", type=int, help="draw what an earlier replay drew (default: a new one, printed)")
    parser.add_argument("--max-minutes", type=float, default=60.0, help="only jobs that took no longer (60)")


def replay(args: argparse.Namespace) -> int:
    """Do jobs again and compare bytes."""
    from scripts.artifact import replay as code

    root = args.results.absolute()
    if not root.is_dir():
        raise ArtifactError(f"{args.results}: no such folder; nothing has been built")
    seed = code.new_seed() if args.seed is None else args.seed
    found = code.candidates(root, args.max_minutes * 60)
    chosen = code.draw(found, args.number, seed)
    left_out = [candidate for candidate in found if candidate.obstacle]
    if not args.json:
        print(f"seed {seed}: {len(chosen)} of {len(found) - len(left_out)} jobs", flush=True)
        for candidate in left_out:
            print(f"  not drawn: {candidate.name}: {candidate.obstacle}", flush=True)
    if not chosen:
        raise ArtifactError(f"{args.results}: holds no job that can be replayed")
    outcomes = []
    for outcome in code.replay(root, chosen):
        outcomes.append(outcome)
        if not args.json:
            print(f"{outcome.name} (first run {outcome.seconds:.1f} s): {outcome.text}", flush=True)
    bad = sum(not outcome.same for outcome in outcomes)
    value = {"seed": seed, "outcomes": [vars(outcome) for outcome in outcomes]}
    value["not_drawn"] = {candidate.name: candidate.obstacle for candidate in left_out}
    say(args, value, [f"{len(outcomes) - bad} of {len(outcomes)} jobs gave the same bytes again"])
    return 1 if bad else 0
