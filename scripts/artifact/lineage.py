"""From an artifact back to its sources: every artifact that it was made from, with digests, licences and rejects."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.artifact.digest import RECORD, ArtifactError
from scripts.artifact.places import results_root
from scripts.artifact.record import read_record
from scripts.recipe.load import Loaded


@dataclass(frozen=True)
class Origin:
    """One artifact of a lineage."""

    artifact: str
    value: str
    depth: int
    """Steps from the target."""
    found: str
    """`same` if what lies there has the value that was used, else `other value now` or `missing now`."""
    facts: tuple[str, ...]


def lineage(target: Path, loaded: Loaded | None = None) -> list[Origin]:
    """Return the target and all that it was made from, depth first, each once.

    Args:
        target: folder of an artifact below `results/<recipe>/`.
        loaded: the recipe, for titles and licences of its sources.

    Raises:
        ArtifactError: no artifact lies at `target`.
    """
    root = results_root(target.absolute())
    record = read_record(target / RECORD)
    seen: set[str] = set()
    origins: list[Origin] = []

    def visit(name: str, value: str, depth: int) -> None:
        if name in seen:
            return
        seen.add(name)
        try:
            made = read_record(root / name / RECORD)
        except ArtifactError:
            origins.append(Origin(name, value, depth, "missing now", ()))
            return
        found = "same" if made["value"] == value else "other value now"
        origins.append(Origin(name, value, depth, found, tuple(_facts(name, made, loaded))))
        for below, below_value in made["inputs"]:
            visit(str(below), str(below_value), depth + 1)

    visit(str(record["name"]), str(record["value"]), 0)
    return origins


def _facts(name: str, record: dict[str, Any], loaded: Loaded | None) -> list[str]:
    stage, _, short = name.partition("/")
    counts, spec = record["counts"], record["spec"]
    said: list[str] = []
    if stage == "download":
        said += [f"from {spec['hub']}"] if spec.get("hub") else []
        source = loaded.sources.get(short) if loaded else None
        said += [f"licence {source.license}"] if source is not None else []
    if stage == "clean" and "rejected" in counts:
        total = sum(counts["rejected"].values())
        said.append(f"{counts['rows_in']:,} rows in, {counts['rows_out']:,} kept, {total:,} rejected")
    if stage == "train":
        said.append(f"from {spec.get('base')}")
    return said
