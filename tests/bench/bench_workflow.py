"""Planning time beside that of an empty workflow, and the share of each stage that goes to hashing."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.conftest import ROOT

ROUNDS = 5


def seconds(command: list[str], folder: Path) -> float:
    """Return the wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return time.perf_counter() - start


def planning() -> None:
    """Time `snakemake -n` of the demo and of the Mythalion recipe beside that of one empty rule, in turns."""
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name)
        (empty / "Snakefile").write_text("rule all:\n    shell: 'true'\n")
        clone = empty / "clone"
        clone.mkdir()
        for part in ("Snakefile", "rules", "scripts", "envs", "config"):
            (clone / part).symlink_to(ROOT / part)
        base = [sys.executable, "-m", "snakemake", "-n", "--quiet"]
        cases = {
            "empty workflow": (base, empty),
            "demo": ([*base, "--configfile", "config/demo.yaml"], clone),
            "mythalion-13b": ([*base, "--configfile", "config/mythalion-13b.yaml"], clone),
        }
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(ROUNDS):
            for case, (command, folder) in cases.items():
                times[case].append(seconds(command, folder))
    floor = statistics.median(times["empty workflow"])
    for case, values in times.items():
        median = statistics.median(values)
        print(
            f"snakemake -n, {case:<15} median {median:5.2f} s, best {min(values):5.2f} s, {median / floor:4.2f}x empty"
        )


def hashing(results: Path) -> None:
    """Print, by stage, wall time and the share of verifying inputs and hashing outputs."""
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for path in sorted(results.rglob("provenance.json")):
        facts, record = json.loads(path.read_text()), json.loads((path.parent / "artifact.json").read_text())
        row = totals[record["stage"]]
        row[0] += facts["seconds"]
        row[1] += facts["verify_s"] + facts["hash_s"]
        row[2] += record["bytes"]
    if not totals:
        print(f"{results}: no results; run `make demo` for the share of hashing by stage")
    for stage, (wall, hashed, size) in totals.items():
        print(
            f"{stage:<10} {wall:7.1f} s, {size / 1e6:7.2f} MB out, verifying and hashing {100 * hashed / wall:5.2f} %"
        )


if __name__ == "__main__":
    planning()
    hashing(ROOT / "results" / "demo")
