"""`results/<recipe>/report.html`: the report with what building took, read from finished artifacts.

The artifact `report` holds the page without it, since its bytes must not depend on a machine.
"""

import argparse
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from scripts.artifact.digest import RECORD, ArtifactError, value_of
from scripts.artifact.record import read_record
from scripts.artifact.stage import Job, StageError
from scripts.recipe.base import canonical_json
from scripts.recipe.report import ReportSpec
from scripts.report.facts import scorecard
from scripts.report.measured import measured
from scripts.report.page import render
from scripts.report.payloads import read_payloads


def load(results: Path) -> Job[ReportSpec]:
    """Return the report's job as it was, over the artifacts that lie below `results/<recipe>` now.

    Raises:
        ArtifactError: no report lies there, or an artifact has changed since it was made.
    """
    record = read_record(results / "report" / RECORD)
    inputs = {}
    for name, value in record["inputs"]:
        inputs[name] = results / name
        if value_of(inputs[name]) != value:
            raise ArtifactError(f"{inputs[name]}: has changed since the report was made; run `snakemake report` first")
    spec = ReportSpec.model_validate_json(canonical_json(record["spec"]))
    return Job(spec, inputs, results / "report", results / ".work", threads=1)


def page(results: Path) -> str:
    """Return the whole page of a recipe's results.

    Raises:
        ArtifactError, StageError: see `load` and `read_payloads`.
    """
    job = load(results)
    found = read_payloads(job)
    return render(job.spec, found, scorecard(job.spec, found), measured(results, job.spec.lineage))


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all; what a killed writer left behind goes."""
    for left in path.parent.glob(f".{path.name}.tmp.*"):
        left.unlink(missing_ok=True)
    draft = path.with_name(f".{path.name}.tmp.{uuid.uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> int:
    """Write the page; return 0, 1 if an artifact is damaged or has changed, 2 if there is no report yet."""
    parser = argparse.ArgumentParser(prog="python -m scripts.report page", description=__doc__)
    parser.add_argument("results", type=Path, help="folder results/<recipe>")
    parser.add_argument("--out", type=Path, help="file to write (default: results/<recipe>/report.html)")
    args = parser.parse_args(arguments)
    if not (args.results / "report" / RECORD).is_file():
        print(f"{args.results}/report: not there; build the report first: snakemake report", file=sys.stderr)
        return 2
    out = args.out or args.results / "report.html"
    try:
        write(out, page(args.results))
    except (ArtifactError, StageError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(out)
    return 0
