"""`make soak`: many random fault points over a whole recipe; one line each, and it goes on where it was stopped.

python -m tests.faults.soak --recipe config/demo.yaml --points 100 --folder results-soak
"""

import argparse
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

from tests.faults.points import count_events, draw, try_point
from tests.faults.shim import Shim
from tests.pipeline.bench import Bench


def finished(folder: Path, recipe: str) -> tuple[Bench, Counter[str]]:
    """Return a finished run and the number of events of each stage, made once."""
    counted = folder / "events.json"
    bench = Bench(folder / "built" / "atelier", recipe)
    if not counted.exists():
        shutil.rmtree(folder / "built", ignore_errors=True)
        bench = Bench.fresh(folder / "built" / "atelier", recipe)
        shim = Shim(folder, bench.folder)
        run = bench.run(timeout=7200, **shim.environment())
        if run.code:
            sys.exit(run.output[-3000:])
        counted.write_text(json.dumps(count_events(shim)))
    return bench, Counter(json.loads(counted.read_text()))


def main() -> int:
    """Try the points that have no row yet; 1 if any did not end in the same digests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="config/demo.yaml")
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20230902)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    folder = args.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "points.jsonl"
    built, events = finished(folder, args.recipe)
    known = [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []
    points = draw(events, args.points, args.seed)
    for number, point in enumerate(points[len(known) :], start=len(known)):
        shutil.rmtree(folder / f"point{number}", ignore_errors=True)
        row = {"number": number, **try_point(built, point, folder / f"point{number}")}
        known.append(row)
        with table.open("a") as handle:
            handle.write(json.dumps(row) + "\n")
        print(
            f"{row['seconds']:6} s  {row['stage']:10} {row['happened']}; {row['event']} -> {row['ended']}", flush=True
        )
    bad = [row for row in known if row["ended"] != "same digests"]
    reached = sum(not str(row["happened"]).startswith("not reached") for row in known)
    same = len(known) - len(bad)
    print(f"{len(known)} points, {reached} reached, {same} ended in the same digests; events {dict(events)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
