"""Benchmark results in the forms that others read: the announcement's tables, `model-index`, `.eval_results/`.

Everything comes from `scorecard.json`, so an export can be made again at any time, and holds no date.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.recipe.exports import export_files


def main(arguments: Sequence[str]) -> int:
    """Write `<out>/<model>/benchmarks.md`, `model-index.yaml` and `.eval_results/<suite>.yaml` of every model.

    Returns:
        0; 1 if the scorecard can't be read; 2 if there is none or it holds no benchmark.
    """
    parser = argparse.ArgumentParser(prog="python -m scripts.report export", description=__doc__)
    parser.add_argument("results", type=Path, help="folder results/<recipe>")
    parser.add_argument("out", type=Path, help="folder to write to")
    args = parser.parse_args(arguments)
    path = args.results / "report" / "scorecard.json"
    if not path.is_file():
        print(f"{path}: not there; build the report first: snakemake report", file=sys.stderr)
        return 2
    try:
        files = export_files(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{path}: not a scorecard of this version ({type(error).__name__}: {error}); rebuild it", file=sys.stderr)
        return 1
    if not files:
        print(f"{path}: holds no benchmark; name suites and models under `benchmark` in the recipe", file=sys.stderr)
        return 2
    for name, text in files.items():
        target = args.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        print(target)
    return 0
