"""Commands on artifacts that need neither Snakemake nor a GPU: `python -m scripts.artifact --help`.

verify, lock, compare, explain, diff, lineage, guard. Exit codes: 0 fine, equal or up to date; 1 damaged, different, to
be made again, or a job is alive; 2 bad usage.
"""

import argparse
import os
import sys
from pathlib import Path

from scripts.artifact.ask import add_commands
from scripts.artifact.digest import ArtifactError
from scripts.artifact.guard import guard
from scripts.artifact.lock import entries_of, format_lock, read_lock
from scripts.artifact.verify import check_tree
from scripts.recipe.problems import RecipeError


def verify(args: argparse.Namespace) -> int:
    """Re-hash every artifact; name each bad file with both digests."""
    if not args.results.is_dir():
        print(f"{args.results}: no such folder; nothing has been built", file=sys.stderr)
        return 2
    artifacts = bad = 0
    for _folder, faults in check_tree(args.results, deep=not args.fast, threads=args.threads):
        artifacts += 1
        bad += bool(faults)
        for fault in faults:
            print(fault)
    print(f"{artifacts - bad} of {artifacts} artifacts verified" + (f", {bad} damaged" if bad else ""))
    return 1 if bad or not artifacts else 0


def lock(args: argparse.Namespace) -> int:
    """Write the lock of one recipe's results."""
    path = args.folder / f"{args.results.name}.lock"
    text = format_lock(entries_of(args.results))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"{path}: {text.count(chr(10)) - 1} artifacts")
    return 0


def compare(args: argparse.Namespace) -> int:
    """Compare results with a lock, stage by stage."""
    locked = {(e.stage, e.name): e for e in read_lock(args.lock)}
    built = {(e.stage, e.name): e for e in entries_of(args.results)}
    differing = 0
    for artifact in [*locked, *(a for a in built if a not in locked)]:
        theirs, ours = locked.get(artifact), built.get(artifact)
        if theirs and ours and theirs.value == ours.value:
            continue
        differing += 1
        said = "not built" if ours is None else "not in the lock" if theirs is None else f"value {ours.value}"
        wanted = f", lock says {theirs.value}" if theirs and ours else ""
        same_key = " (same key)" if theirs and ours and theirs.key == ours.key else ""
        print(f"{'/'.join(filter(None, artifact))}: {said}{wanted}{same_key}")
    print(f"{len(built) - sum(a not in locked for a in built)} built, {differing} differ from {args.lock}")
    return 1 if differing else 0


def check_guard(args: argparse.Namespace) -> int:
    """Refuse while a job of this directory is alive."""
    messages = guard(args.directory)
    for message in messages:
        print(message, file=sys.stderr)
    return 1 if messages else 0


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.artifact", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("verify", help=verify.__doc__)
    command.add_argument("results", type=Path)
    command.add_argument("--fast", action="store_true", help="trust files whose stat has not changed since hashing")
    command.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    command.set_defaults(run=verify)
    command = commands.add_parser("lock", help=lock.__doc__)
    command.add_argument("results", type=Path)
    command.add_argument("folder", type=Path, nargs="?", default=Path("locks"))
    command.set_defaults(run=lock)
    command = commands.add_parser("compare", help=compare.__doc__)
    command.add_argument("results", type=Path)
    command.add_argument("lock", type=Path)
    command.set_defaults(run=compare)
    command = commands.add_parser("guard", help=check_guard.__doc__)
    command.add_argument("directory", type=Path)
    command.set_defaults(run=check_guard)
    add_commands(commands)
    args = parser.parse_args()
    try:
        return int(args.run(args))
    except (ArtifactError, RecipeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
