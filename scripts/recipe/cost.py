"""What the jobs of a dry run will take: GPUs, GPU hours, memory, disk and price, before anything is spent. No torch.

Figures of a training are those of `estimate.py`. How long a benchmark runs is not known, so its time limit counts, and
the table says "at most".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.recipe.benchmark import BenchmarkSpec
from scripts.recipe.estimate import ASSUMED_MFU, GIB, Assumptions, PlanFigures, Workload, plan_figures
from scripts.recipe.fetch import DownloadSpec
from scripts.recipe.gpus import Gpu, gpu_named
from scripts.recipe.graph import Artifact, Graph
from scripts.recipe.merge import MergeSpec
from scripts.recipe.shapes import ModelShape, UnknownShapeError, shape_of
from scripts.recipe.train import TrainSpec

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_TOKEN_BYTES = {"mix": 5, "pack": 4}
"""Disk of a training token: as text with its JSON (an estimate), as a number."""

Asked = Mapping[str, int]
"""`gpu`, `mem_mb` and `runtime` (minutes) of one job, after the profile."""


@dataclass(frozen=True)
class Take:
    """What one job takes; None where it can't be known yet."""

    artifact: Artifact
    gpus: int
    gpu_hours: float | None
    at_most: bool
    """The hours are the job's time limit."""
    gpu_bytes: int | None
    """Peak of one GPU: of a training in closed form, of a benchmark its weights alone."""
    memory_mb: int
    """Host memory of a node, as asked for."""
    disk_bytes: int | None
    """What is written, checkpoints included."""


def takes(graph: Graph, asked: Mapping[Artifact, Asked], gpu_models: Mapping[str, str], results: Path) -> list[Take]:
    """Return one entry for each artifact that would be made, in order of the flow.

    Args:
        graph: all jobs of the recipe.
        asked: what each job that would run asks for.
        gpu_models: stage -> name of its GPU as the profile gives it.
        results: `results/<recipe>`; shapes of models that are there already are read from their config.json.
    """
    return [_take(graph, a, asked[a], _known_gpu(gpu_models.get(a[0], "")), results) for a in graph.jobs if a in asked]


def _take(graph: Graph, artifact: Artifact, asked: Asked, gpu: Gpu | None, results: Path) -> Take:
    spec, shape = graph.jobs[artifact].spec, _shape(graph, artifact, results)
    gpus = asked["gpu"]
    if isinstance(spec, TrainSpec) and spec.launch.device == "cuda":
        gpus = spec.launch.processes  # a profile may count them otherwise: `gpu=1` is one job at a time
    limit = gpus * asked["runtime"] / 60
    hours, at_most, peak, disk = limit, limit > 0, None, _disk(graph, artifact, shape)
    if isinstance(spec, TrainSpec) and shape is not None:
        figures = _training(graph, spec, shape, gpu)
        disk = figures.disk_bytes - 2 * shape.params  # its base is the download's
        if spec.launch.device == "cuda":
            peak = figures.peak_bytes
            hours, at_most = (limit, True) if figures.gpu_hours is None else (figures.gpu_hours, False)
    if isinstance(spec, BenchmarkSpec) and gpus and shape is not None:
        peak = shape.params * _BYTES[spec.dtype]
    return Take(artifact, gpus, hours, at_most, peak, asked["mem_mb"], disk)


def _training(graph: Graph, spec: TrainSpec, shape: ModelShape, gpu: Gpu | None) -> PlanFigures:
    train = graph.recipe.models[spec.model].train
    assert train is not None
    mixture = graph.recipe.mixtures[train.mixture]
    held_out = int((mixture.expected_tokens or 0) * mixture.val_set_size / (1 - mixture.val_set_size))
    work = Workload(mixture.expected_tokens, float(train.pack.sequence_len), held_out)
    return plan_figures(shape, (train.pack, train.numerics, train.cadence, train.launch), work, Assumptions(gpu))


def table(found: Sequence[Take], price: float | None) -> list[str]:
    """Return the lines of the table: a row a job, and the sum."""
    rows: list[tuple[str, ...]] = [("job", "GPUs", "GPU hours", "GPU GiB", "memory GB", "disk GB", "cost")]
    for take in found:
        gpu = _figure(take.gpu_bytes, GIB, 1)
        cost = _hours((take.gpu_hours or 0) * price, take.at_most) if price is not None and take.gpus else "-"
        hours = _hours(take.gpu_hours or 0, take.at_most) if take.gpus else "-"
        figures = (hours, gpu, f"{take.memory_mb / 1000:.0f}", _figure(take.disk_bytes, 1e9, 1), cost)
        rows.append((" ".join(take.artifact).strip(), str(take.gpus or "-"), *figures))
    hours_sum = sum(take.gpu_hours or 0 for take in found)
    any_gpu, loose = any(take.gpus for take in found), any(take.at_most for take in found)
    disk = sum(take.disk_bytes or 0 for take in found)
    hours, total = _hours(hours_sum, loose) if any_gpu else "-", "-"
    if any_gpu and price is not None:
        total = _hours(hours_sum * price, loose)
    rows.append((f"total of {len(found)} jobs", "", hours, "", "", _figure(disk, 1e9, 1), total))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
    return ["What this takes:", *lines, *_notes(found, price)]


def _notes(found: Sequence[Take], price: float | None) -> list[str]:
    notes = []
    if any(take.at_most for take in found):
        notes.append("<= the job's time limit: how long it runs is not known. A benchmark's GPU memory is its weights.")
    if any(take.gpus and not take.at_most for take in found):
        notes.append(f"Trainings: {ASSUMED_MFU:g} of the GPU's bf16 peak assumed, without start and checkpoints.")
    if any(take.gpus for take in found):
        costs = "no price_per_gpu_hour in the recipe" if price is None else f"{price:g} a GPU hour, from the recipe"
        notes.append(f"cost: {costs}. `snakemake plan` has the exact peak memory.")
    return notes


def _shape(graph: Graph, artifact: Artifact, results: Path) -> ModelShape | None:
    spec, name = graph.jobs[artifact].spec, artifact[1]
    if isinstance(spec, BenchmarkSpec):
        name = spec.model
    if name not in graph.recipe.models or (artifact[0] == "benchmark" and not isinstance(spec, BenchmarkSpec)):
        return None
    try:
        return shape_of(graph.recipe, name, results)
    except (UnknownShapeError, OSError, ValueError):
        return None


def _disk(graph: Graph, artifact: Artifact, shape: ModelShape | None) -> int | None:
    """Return what a job writes, as far as the recipe knows."""
    stage, name = artifact
    spec = graph.jobs[artifact].spec
    if isinstance(spec, DownloadSpec):
        pins = [pin.bytes if pin is not None else None for pin in spec.fetch.files.values()]
        if None not in pins:
            return sum(pin for pin in pins if pin is not None)
        return 2 * shape.params if shape is not None else None  # published in 16 bits
    if isinstance(spec, MergeSpec) and shape is not None:
        return shape.params * _BYTES[spec.out_dtype]
    if stage in _TOKEN_BYTES:
        train = graph.recipe.models[name].train if stage == "pack" else None
        mixture = graph.recipe.mixtures[train.mixture if train else name]
        return mixture.expected_tokens * _TOKEN_BYTES[stage] if mixture.expected_tokens else None
    return None


def _known_gpu(name: str) -> Gpu | None:
    try:
        return gpu_named(name)
    except ValueError:
        return None


def _hours(value: float, at_most: bool) -> str:
    return f"{'<= ' if at_most else ''}{value:,.0f}"


def _figure(value: float | None, unit: float, digits: int) -> str:
    if not value:
        return "-"
    least = 10.0**-digits
    return f"{value / unit:,.{digits}f}" if value / unit >= least else f"< {least:g}"
