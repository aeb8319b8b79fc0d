"""The commands `verify`, `lock`, `compare` and `guard`."""

import argparse
import os
import sys
import time
from pathlib import Path

from scripts.artifact.anywhere import folder_faults
from scripts.artifact.commands.output import say
from scripts.artifact.digest import ArtifactError
from scripts.artifact.lock import Entry, entries_of, format_lock, read_lock
from scripts.artifact.places import artifact_folders, results_root
from scripts.artifact.verify import Fault, begin, check_records, read_all
from scripts.recipe.start import uncollected


def verify_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `verify`."""
    parser.add_argument("places", nargs="+", type=Path, metavar="PLACE", help="results, an artifact, or a release")
    parser.add_argument("--deep", action="store_true", help="read every byte, also of files that look unchanged")
    parser.add_argument("--tensors", action="store_true", help="read every byte, and hold each tensor to its digest")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="files read side by side")


def verify(args: argparse.Namespace) -> int:
    """Check every artifact; name each bad file with both digests."""
    start, checks, faults = time.perf_counter(), [], []
    alone = 0
    for place in args.places:
        if not place.is_dir():
            raise ArtifactError(f"{place}: no such folder; nothing has been built")
        found = artifact_folders(place.absolute())
        if found == [place.absolute()] and not _in_results(place):
            alone += 1  # a release that was downloaded: no memory of it, no record of the machine that made it
            faults += [Fault(place, text.removeprefix(f"{place}: ")) for text in folder_faults(place, args.threads)]
        else:
            with uncollected():  # of 100,000 files, a tenth of the time
                checks += [begin(folder, args.deep, args.tensors) for folder in found]
    if not checks and not alone:
        raise ArtifactError(f"{args.places[0]}: holds no artifact")
    damaged = int(bool(faults))
    read, unchanged = sum(check.bytes for check in checks), sum(check.unchanged for check in checks)
    files = sum(len(check.unread) for check in checks)
    for check in read_all(checks, args.threads):
        found_here = check.faults + check_records(check.folder)
        damaged += bool(found_here)
        faults += found_here
    seconds = time.perf_counter() - start
    total = len(checks) + alone
    value = {"artifacts": total, "damaged": damaged, "files_read": files, "bytes_read": read}
    value |= {"files_unchanged": unchanged}
    lines = [*map(str, faults)]
    lines.append(f"{total - damaged} of {total} artifacts verified" + (f", {damaged} damaged" if damaged else ""))
    lines.append(
        f"{files:,} files read ({read:,} bytes), {unchanged:,} unchanged since they were hashed; {seconds:.1f} s"
    )
    say(args, {**value, "faults": [{"path": str(f.path), "text": f.text} for f in faults]}, lines)
    return 1 if damaged else 0


def _in_results(place: Path) -> bool:
    try:
        return results_root(place.absolute()).parent.name == "results"
    except ArtifactError:
        return False


def lock_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `lock`."""
    parser.add_argument("results", type=Path, help="results/<recipe>")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("locks"), help="where the lock lies (locks)")


def lock(args: argparse.Namespace) -> int:
    """Write the lock of one recipe's results."""
    path = args.folder / f"{args.results.name}.lock"
    entries = entries_of(args.results)
    if {results_root(folder) for folder in artifact_folders(args.results)} != {args.results}:
        raise ArtifactError(f"{args.results}: no recipe's results; name results/<recipe>; {path} stays as it is")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(format_lock(entries), encoding="utf-8")
    say(args, {"lock": str(path), "artifacts": len(entries)}, [f"{path}: {len(entries)} artifacts"])
    return 0


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `compare`."""
    parser.add_argument("results", type=Path, help="results/<recipe>")
    parser.add_argument("lock", type=Path, help="locks/<recipe>.lock, or a release's recipe.lock")
    parser.add_argument("--listed", action="store_true", help="hold only what the lock names against it")


def compare(args: argparse.Namespace) -> int:
    """Compare results with a lock, stage by stage."""
    if not args.lock.is_file():
        raise ArtifactError(f"{args.lock}: no such file; `make lock RECIPE=...` writes it")
    locked = {(e.stage, e.name): e for e in read_lock(args.lock)}
    built = {(e.stage, e.name): e for e in entries_of(args.results)}
    found = []
    for artifact in [*locked, *(a for a in built if a not in locked and not args.listed)]:
        theirs, ours = locked.get(artifact), built.get(artifact)
        if not (theirs and ours and theirs.value == ours.value):
            found.append(("/".join(filter(None, artifact)), _said(theirs, ours), theirs, ours))
    lines = [f"{name}: {text}" for name, text, _, _ in found]
    equal = sum(a in built and built[a].value == locked[a].value for a in locked)
    lines.append(f"{equal} of {len(locked)} artifacts equal {args.lock}, {len(found)} differ")
    rows = [
        {"artifact": name, "how": text, "lock": theirs and theirs.value, "built": ours and ours.value}
        for name, text, theirs, ours in found
    ]
    say(args, {"locked": len(locked), "equal": equal, "differ": rows}, lines)
    return 1 if found else 0


def _said(theirs: Entry | None, ours: Entry | None) -> str:
    if ours is None:
        return "not built"
    if theirs is None:
        return "not in the lock"
    return f"value {ours.value}, lock says {theirs.value}" + (" (same key)" if theirs.key == ours.key else "")


def guard_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `guard`."""
    parser.add_argument("directory", type=Path, help="where snakemake is run")


def guard(args: argparse.Namespace) -> int:
    """Refuse while a job of this directory is alive."""
    from scripts.artifact.guard import guard as living

    messages = living(args.directory)
    if args.json:
        say(args, messages, [])
    for message in [] if args.json else messages:
        print(message, file=sys.stderr)
    return 1 if messages else 0
