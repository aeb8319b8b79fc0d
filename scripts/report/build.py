"""The report stage: every figure of a recipe on one page that works from disk."""

import json

from scripts.artifact.stage import Job, StageError
from scripts.recipe.report import ReportSpec
from scripts.report.facts import scorecard
from scripts.report.page import render
from scripts.report.payloads import read_payloads

MAX_BYTES = 5_000_000
"""Largest page: opens at once on a phone and passes as an attachment."""


def build(job: Job[ReportSpec]) -> None:
    """Write `index.html` and `scorecard.json` from the payloads of all inputs.

    Raises:
        StageError: a payload isn't of the documented form, or the page would be larger than 5 MB.
    """
    found = read_payloads(job)
    facts = scorecard(job.spec, found)
    page = render(job.spec, found, facts).encode("utf-8")
    if len(page) > MAX_BYTES:
        raise StageError(f"the page has {len(page):,} bytes, allowed are {MAX_BYTES:,}; report fewer models or suites")
    (job.out / "index.html").write_bytes(page)
    text = json.dumps(facts, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    (job.out / "scorecard.json").write_text(text + "\n", encoding="utf-8")
    job.counts.update(artifacts=len(job.inputs), page_bytes=len(page))
