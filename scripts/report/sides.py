"""Two finished results side by side: what is read of each, and which model answers to which."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.artifact.digest import ArtifactError
from scripts.artifact.stage import StageError
from scripts.report.measured import Measured, measured
from scripts.report.payloads import Payloads, read_payloads
from scripts.report.volatile import load

KINDS = ("download", "create", "train", "merge")


@dataclass
class Side:
    """One of the two."""

    path: Path
    facts: dict[str, Any]
    """`scorecard.json`."""
    found: Payloads = field(default_factory=Payloads)
    """Payloads, for curves and scores of single items; empty where the artifacts are gone or have changed."""
    measured: Measured = field(default_factory=Measured)
    note: str = ""
    """Why the payloads are empty."""

    @property
    def values(self) -> dict[str, str]:
        """VALUE of each artifact."""
        return {row["artifact"]: row["value"] for row in self.facts["artifacts"]}

    @property
    def models(self) -> dict[str, str]:
        """{model: how it is made}; a scorecard knows downloaded models by their benchmarks alone."""
        found = {}
        for artifact in self.values:
            stage, _, name = artifact.partition("/")
            if stage in KINDS:
                found[name] = stage
        return {row["model"]: "download" for row in self.facts["benchmarks"]} | found


def read_side(path: Path) -> Side:
    """Read one side.

    Args:
        path: `results/<recipe>`, or a `scorecard.json` alone.

    Raises:
        ArtifactError: there is no scorecard, or it is of another version.
    """
    card = path if path.is_file() else path / "report" / "scorecard.json"
    try:
        facts = json.loads(card.read_text(encoding="utf-8"))
        side = Side(path, facts)
        if not isinstance(facts["recipe"], str):
            raise ValueError("names no recipe")
    except OSError:
        raise ArtifactError(f"{card}: not there; build the report first: snakemake report") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{card}: not a scorecard of this version ({error}); rebuild it") from None
    if path.is_file():
        side.note = "a scorecard alone: no curves, no tests on the same items, no speed"
        return side
    try:
        job = load(path)
        side.found = read_payloads(job)
        side.measured = measured(path, job.spec.lineage)
    except (ArtifactError, StageError, OSError, ValueError) as error:
        side.note = f"its artifacts can't be read ({error}): no curves, no tests on the same items"
    return side


def pair_models(a: Side, b: Side, given: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return which model of A is held against which of B.

    Pairs that are given come first; then equal names; the rest in order, a fine-tune with a fine-tune and so on.

    Args:
        a: one side.
        b: the other side.
        given: texts `model of A=model of B`.

    Raises:
        ArtifactError: a pair names a model that is not there.
    """
    pairs = []
    for text in given:
        first, _, second = text.partition("=")
        for name, side in ((first, a), (second, b)):
            if name not in side.models:
                raise ArtifactError(
                    f"--pair {text}: {side.path} has no model {name!r}; it has {', '.join(side.models)}"
                )
        pairs.append((first, second))
    left = [name for name in a.models if name not in {x for x, _ in pairs}]
    right = [name for name in b.models if name not in {y for _, y in pairs}]
    same = [name for name in left if name in right]
    pairs += [(name, name) for name in same]
    for kind in KINDS:
        rest = [
            [n for n in names if n not in same and side.models[n] == kind] for names, side in ((left, a), (right, b))
        ]
        pairs += list(zip(*rest, strict=False))
    return pairs
