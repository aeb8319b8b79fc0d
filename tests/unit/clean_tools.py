"""Runs the clean stage on small files written by a test."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scripts.artifact.stage import Job
from scripts.clean.build import clean
from scripts.clean.lexicon import Lexicon, load_lexicon
from scripts.recipe.clean import CleanSpec

# Stand-ins: what the gate does must not depend on what the real lists hold.
NEUTRAL = Lexicon.of(sexual=["zorble"], minor=["quimple"], strong=["grobnak"], weak=["fnarp", "dwoozle"])


@dataclass
class Result:
    """Payload of one run."""

    out: Path
    rows: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    audit: dict[str, Any]
    samples: dict[str, Any]
    counts: dict[str, Any]

    @property
    def reasons(self) -> list[str]:
        return [row["reason"] for row in self.rejected]


def jsonl(*rows: object) -> str:
    """Return JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def run(
    folder: Path,
    read: dict[str, Any],
    files: dict[str, str | bytes],
    lexicon: Lexicon | None = None,
    seed: int = 7,
    compat: dict[str, bool] | None = None,
    made: dict[str, str] | None = None,
    **filters: Any,
) -> Result:
    """Write `files` as a download and clean it; `made` is the source's purpose and generator."""
    download, out = folder / "download" / "src", folder / "out"
    for path in (download, out):
        path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (download / name).write_bytes(content.encode() if isinstance(content, str) else content)
    values = {"source": "src", "read": read, "filters": filters, "seed": seed, "compat": compat or {}}
    spec = CleanSpec.model_validate({**values, **(made or {})})
    job = Job(spec, {"download/src": download}, out, folder / "work", 1)
    clean(job, lexicon or load_lexicon())
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text("utf-8").splitlines()]
    audit = json.loads((out / "audit.json").read_text("utf-8"))
    samples = json.loads((out / "samples.json").read_text("utf-8"))
    rows = pq.read_table(out / "episodes.parquet").to_pylist()
    assert audit["rows_in"] == len(rows) + len(rejected) == audit["rows_out"] + sum(audit["rejected"].values())
    assert not list((folder / "work").glob("*")), "the stage leaves nothing behind"
    return Result(out, rows, rejected, audit, samples, job.counts)


def said(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the turns of a row as pairs."""
    return [(turn["role"], turn["text"]) for turn in row["turns"]]
