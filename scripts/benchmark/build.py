"""One suite on one model: render every task first, then load the model once and score task by task."""

import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.artifact.stage import Job, StageError
from scripts.benchmark.heldout import Row, bits_per_byte, held_out_rows, score_rows
from scripts.benchmark.identity import digests
from scripts.benchmark.items import Item, chance, chance_variance, items_sha256, prompts_sha256
from scripts.benchmark.output import Sample, TaskResult, write_results
from scripts.benchmark.render import check_count, form_of, render
from scripts.recipe.benchmark import BenchmarkSpec, Task
from scripts.recipe.hardware import pin_cpu

if TYPE_CHECKING:
    from scripts.benchmark.model import Model

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    # cuBLAS repeats its bits only with a fixed workspace; read when CUDA starts.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


def build(job: Job[BenchmarkSpec]) -> None:
    """Write `results.json` and `samples.parquet` (docs/formats.md) of one model on one suite.

    Raises:
        StageError: bad data, a model that can't or mustn't be loaded, or a portable run begun after torch was imported.
    """
    spec = job.spec
    os.environ.update(_OFFLINE)
    if spec.portable_cpu:
        _pin(spec)
    files = job.of_stage("download")
    mixes = {name: path for name, path in job.of_stage("mix").items() if name in spec.mixtures}
    work = {
        name: _prepare(name, task, files.get(task.dataset or spec.suite), mixes) for name, task in spec.tasks.items()
    }
    # torch, transformers and lm-eval are imported here: bad data is reported before their 4 s, and after the pins.
    from scripts.benchmark.model import load_model

    started = time.perf_counter()
    folder = _model_folder(job)
    model = load_model(folder, spec)
    job.facts["load_s"] = time.perf_counter() - started
    results, seconds, truncated = {}, {}, {}
    for name, (items, rows) in work.items():
        started, before, task = time.perf_counter(), model.truncated, spec.tasks[name]
        result = _score_rows(model, rows, task) if rows else _score(model, name, items, task)
        seconds[name], truncated[name] = time.perf_counter() - started, model.truncated - before
        cut = f"{truncated[name]} requests lost the left end of their context at {model.max_length} tokens."
        results[name] = replace(result, note=f"{task.note} {cut}".strip()) if truncated[name] else result
        print(f"{name}: {len(result.samples)} items. {cut}")
    read = {name: path for name, path in files.items() if path != folder}
    write_results(job.out, spec.model, spec.suite, results, protocol=spec.protocol, digests=digests(folder, read))
    job.counts["items"] = {name: len(result.samples) for name, result in results.items()}
    job.counts["truncated_requests"] = truncated
    job.counts["max_length"] = model.max_length
    job.facts["task_s"] = seconds


def _pin(spec: BenchmarkSpec) -> None:
    if spec.device != "cpu":
        raise StageError("benchmark.portable_cpu needs device: cpu; pin the CPU or use the GPU, not both")
    if "torch" in sys.modules:
        raise StageError(
            "benchmark.portable_cpu: torch is already imported, and reads the pins only once; start afresh"
        )
    pin_cpu()


def _model_folder(job: Job[BenchmarkSpec]) -> Path:
    found = [job.of_stage(stage).get(job.spec.model) for stage in ("create", "download", "train", "merge")]
    folders = [folder for folder in found if folder is not None]
    if len(folders) != 1:
        raise StageError(f"needs exactly one model {job.spec.model!r} among its inputs; found {list(job.inputs)}")
    return folders[0]


def _prepare(name: str, task: Task, files: Path | None, mixes: dict[str, Path]) -> tuple[list[Item], list[Row]]:
    """Return the items or the held-out rows of one task; one of the two is empty."""
    if task.format != "bits_per_byte":
        return render(name, task, files), []
    rows = held_out_rows(name, task, mixes)
    check_count(name, task, len(rows))
    return [], rows[: task.limit]


def _score(model: "Model", name: str, items: list[Item], task: Task) -> TaskResult:
    from scripts.benchmark.tasks import score_items  # 1 s of imports that a suite of held-out rows doesn't need

    form = form_of(name, task)
    scored = score_items(model, name, items, form)
    samples = [
        Sample(form.pick(ll), item.gold, ll, scores)
        for ll, item, scores in zip(scored.loglikelihoods, items, scored.scores, strict=True)
    ]
    first = next(iter(scored.metrics.values()))[0]
    return TaskResult(
        format=task.format,
        prompts_sha256=items_sha256(items),
        metrics=scored.metrics,
        chance=chance(items),
        correct=round(first * len(items)) if form.counted else None,
        note=task.note,
        samples=samples,
        chance_variance=chance_variance(items),
        shots=task.shots,
        bos=form.bos,
        upstream_bug=task.upstream_bug,
        group=task.group,
    )


def _score_rows(model: "Model", rows: list[Row], task: Task) -> TaskResult:
    loglikelihoods = score_rows(model, rows)
    if not all(map(math.isfinite, loglikelihoods)):
        raise StageError("a held-out row has no finite likelihood: the model's weights overflow in this dtype")
    return TaskResult(
        format=task.format,
        prompts_sha256=prompts_sha256([[row.source, row.id, row.text] for row in rows]),
        metrics=bits_per_byte(rows, loglikelihoods),
        chance=None,
        correct=None,
        note=task.note,
        samples=[Sample(None, None, [value]) for value in loglikelihoods],
    )
