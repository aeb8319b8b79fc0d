"""What building took, and on what: the records beside the artifacts. They differ from run to run; none is hashed.

The page `results/<recipe>/report.html` shows it; `results/<recipe>/report/index.html`, an artifact, does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.artifact.digest import FACTS, RECORD, read_sums
from scripts.artifact.record import read_record
from scripts.recipe.base import STAGES

SHOWN_PACKAGES = (
    *("torch", "transformers", "accelerate", "tokenizers", "sentencepiece", "safetensors", "numpy", "pyarrow"),
    *("numba", "datasets", "lm-eval", "huggingface-hub", "altair", "vl-convert-python"),
)


@dataclass(frozen=True)
class Point:
    """Speed of one stretch of steps that ends at `step`."""

    step: int
    tokens_per_s: float
    mfu: float | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Speed:
    """How fast a fine-tune ran."""

    tokens_per_s: float | None
    mfu: float | None
    peak_bytes: int | None
    on_gpu: bool
    world_size: int | None
    resumed_at_step: int
    series: list[Point]


@dataclass(frozen=True)
class Run:
    """What making one artifact took."""

    artifact: str
    stage: str
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: float
    size_bytes: int
    machine: str
    python: str


@dataclass(frozen=True)
class Measured:
    """All volatile facts of a recipe's results."""

    runs: list[Run] = field(default_factory=list)
    speeds: dict[str, Speed] = field(default_factory=dict)
    packages: dict[str, dict[str, str]] = field(default_factory=dict)
    """{stage: {package: version}} of the packages that people ask for."""
    unpinned: dict[str, str] = field(default_factory=dict)
    """Packages that were there in another version than the lock's."""
    values: dict[str, str] = field(default_factory=dict)
    """VALUE of the artifacts that the report itself does not read: downloads."""
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """Digests of their files."""

    @property
    def environments(self) -> list[tuple[list[str], dict[str, str]]]:
        """Stages of the same packages, in order of the flow."""
        found: list[tuple[list[str], dict[str, str]]] = []
        for stage in (s for s in STAGES if self.packages.get(s)):
            same = next((names for names, packages in found if packages == self.packages[stage]), None)
            if same is None:
                found.append(([stage], self.packages[stage]))
            else:
                same.append(stage)
        return found

    @property
    def stages(self) -> list[dict[str, Any]]:
        """Sums by stage, in order of the flow."""
        rows = []
        for stage in STAGES:
            mine = [run for run in self.runs if run.stage == stage]
            if mine:
                rows.append(
                    {
                        "stage": stage,
                        "jobs": len(mine),
                        "seconds": sum(run.seconds for run in mine),
                        "cpu_seconds": sum(run.cpu_seconds for run in mine),
                        "peak_rss_bytes": max(run.peak_rss_bytes for run in mine),
                        "size_bytes": sum(run.size_bytes for run in mine),
                        "python": ", ".join(sorted({run.python for run in mine})),
                        "machine": ", ".join(sorted({run.machine for run in mine})),
                    }
                )
        return rows


def measured(root: Path, lineage: Mapping[str, list[str]]) -> Measured:
    """Read the records of all artifacts of a recipe that lie below `root`.

    Args:
        root: `results/<recipe>`.
        lineage: {artifact: artifacts that it reads}.

    Raises:
        ArtifactError: a record is damaged.
    """
    found = Measured()
    names = dict.fromkeys([*lineage, *(parent for parents in lineage.values() for parent in parents)])
    for name in names:
        folder, stage = root / name, name.split("/")[0]
        if not (folder / FACTS).is_file():
            continue
        record, facts = read_record(folder / RECORD), read_record(folder / FACTS)
        found.runs.append(_run(name, stage, record, facts))
        pins = {package: str(version) for package, version in dict(record.get("packages", {})).items()}
        found.packages.setdefault(stage, {p: pins[p] for p in SHOWN_PACKAGES if p in pins})
        found.unpinned.update(facts.get("unpinned", {}))
        if stage == "train":
            found.speeds[name.split("/", 1)[1]] = _speed(facts)
        if stage == "download":
            found.values[name], found.files[name] = str(record["value"]), read_sums(folder)
    return found


def _run(name: str, stage: str, record: dict[str, Any], facts: dict[str, Any]) -> Run:
    peak = max(float(facts.get(key, 0)) for key in ("peak_rss_bytes", "children_peak_rss_bytes"))
    machine = f"{facts.get('machine', '?')}, {facts.get('cpus', '?')} CPUs"
    seconds, cpu = float(facts.get("seconds", 0)), float(facts.get("cpu_seconds", 0))
    return Run(name, stage, seconds, cpu, peak, int(record.get("bytes", 0)), machine, str(facts.get("python", "?")))


def _speed(facts: dict[str, Any]) -> Speed:
    """Read a fine-tune's facts; a key that its trainer didn't know is None."""
    gpu = facts.get("peak_gpu_bytes")
    series = [
        Point(int(p["step"]), float(p["tokens_per_s"]), p.get("mfu"), p.get("peak_gpu_bytes", p.get("peak_rss_bytes")))
        for p in facts.get("speed", [])
    ]
    return Speed(
        facts.get("tokens_per_s"),
        facts.get("mfu"),
        gpu if gpu is not None else facts.get("peak_rss_bytes"),
        gpu is not None,
        facts.get("asserted", {}).get("world_size"),
        int(facts.get("resumed_at_step", 0)),
        series,
    )
