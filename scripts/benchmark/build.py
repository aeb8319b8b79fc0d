"""One suite on one model, or a shard of it: render every task, load the model once, score; or join shards' scores."""

import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from scripts.artifact.stage import Job, StageError
from scripts.benchmark.heldout import Row, bits_per_byte, held_out_rows, score_rows
from scripts.benchmark.items import Item, chance, items_sha256, prompts_sha256
from scripts.benchmark.output import Sample, TaskResult, write_results
from scripts.benchmark.render import FORMATS, check_count, render
from scripts.benchmark.shards import Scores, TaskScores, join_shards, shard_groups, write_shard
from scripts.benchmark.tree import group_items
from scripts.recipe.benchmark import BenchmarkSpec, Task
from scripts.recipe.hardware import pin_cpu

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


Work = tuple[list[Item], list[Row]]
"""Items, or held-out rows, of a task; one of the two is empty."""


def build(job: Job[BenchmarkSpec]) -> None:
    """Write `results.json` and `samples.parquet` (docs/formats.md) of one model on one suite, or a shard's scores.

    Raises:
        StageError: bad data, a model that can't or mustn't be loaded, or a portable run begun after torch was imported.
    """
    spec = job.spec
    os.environ.update(_OFFLINE)
    if spec.portable_cpu:
        _pin(spec)
    files = job.of_stage("download").get(spec.suite)
    mixes = {name: path for name, path in job.of_stage("mix").items() if name in spec.mixtures}
    work = {name: _prepare(name, task, files, mixes) for name, task in spec.tasks.items()}
    prompts = {name: _prompts(*found) for name, found in work.items()}
    if spec.combines:
        sizes = {name: len(items) + len(rows) for name, (items, rows) in work.items()}
        scores = join_shards(list(job.of_stage("benchmark").values()), sizes, prompts)
    else:
        scores = _score(job, work)
    job.counts["truncated_requests"] = {name: task.truncated for name, task in scores.tasks.items()}
    job.counts["max_length"] = scores.max_length
    job.counts["items"] = {name: len(task.loglikelihoods) for name, task in scores.tasks.items()}
    if spec.shard is not None:
        write_shard(job.out, scores, prompts)
        return
    results = {}
    for name, task in spec.tasks.items():
        (items, rows), found = work[name], scores.tasks[name]
        values = [found.loglikelihoods[i] for i in range(len(found.loglikelihoods))]
        result = _row_result(rows, task, values) if rows else _item_result(name, items, task, values)
        cut = f"{found.truncated} requests lost the left end of their context at {scores.max_length} tokens."
        result = replace(result, prompts_sha256=prompts[name])
        results[name] = replace(result, note=f"{task.note} {cut}".strip()) if found.truncated else result
        print(f"{name}: {len(values)} items. {cut}")
    write_results(job.out, spec.model, spec.suite, results)


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


def _prepare(name: str, task: Task, files: Path | None, mixes: dict[str, Path]) -> Work:
    """Return the items or the held-out rows of one task; one of the two is empty."""
    if task.format != "bits_per_byte":
        return render(name, task, files), []
    rows = held_out_rows(name, task, mixes)
    check_count(name, task, len(rows))
    return [], rows[: task.limit]


def _prompts(items: list[Item], rows: list[Row]) -> str:
    return prompts_sha256([[row.source, row.id, row.text] for row in rows]) if rows else items_sha256(items)


def _score(job: Job[BenchmarkSpec], work: dict[str, Work]) -> Scores:
    """Load the model and score this job's groups of every task."""
    # torch, transformers and lm-eval are imported here: bad data is reported before their 4 s, and after the pins.
    from scripts.benchmark.model import load_model

    spec, started = job.spec, time.perf_counter()
    model = load_model(_model_folder(job), spec)
    job.facts["load_s"] = time.perf_counter() - started
    groups = {name: _groups(*found, spec.batch_size) for name, found in work.items()}
    sizes = {name: _sizes(*found) for name, found in work.items()}
    chosen = shard_groups(groups, sizes, spec.shards, spec.shard)
    scores, job.facts["task_s"] = Scores(model.max_length, {}), {}
    for name, (items, rows) in work.items():
        started, before = time.perf_counter(), model.truncated
        order = [i for group in chosen[name] for i in group]
        if rows:
            values = [[value] for group in chosen[name] for value in score_rows(model, [rows[i] for i in group])]
        else:
            model.use_bos(FORMATS[spec.tasks[name].format].bos)
            found = model.score_items([item.requests() for item in items], chosen[name])
            values = [[value for value, _ in item] for item in found]
        if not all(math.isfinite(value) for item in values for value in item):
            raise StageError(f"task {name}: a likelihood isn't finite: the model's weights overflow in {spec.dtype}")
        scores.tasks[name] = TaskScores(dict(zip(order, values, strict=True)), model.truncated - before)
        job.facts["task_s"][name] = time.perf_counter() - started
    return scores


def _groups(items: list[Item], rows: list[Row], size: int) -> list[range]:
    if rows:
        return [range(i, min(i + size, len(rows))) for i in range(0, len(rows), size)]
    return group_items([item.context for item in items], size)


def _sizes(items: list[Item], rows: list[Row]) -> list[int]:
    if rows:
        return [len(row.text.encode()) for row in rows]
    return [len(item.context.encode()) + sum(len(choice.encode()) for choice in item.choices) for item in items]


def _item_result(name: str, items: list[Item], task: Task, values: list[list[float]]) -> TaskResult:
    from scripts.benchmark.tasks import lm_eval_metrics  # 1 s of imports that a suite of held-out rows doesn't need

    form = FORMATS[task.format]
    metrics = lm_eval_metrics(name, items, form, values)
    samples = [Sample(form.pick(ll), item.gold, ll) for ll, item in zip(values, items, strict=True)]
    first = next(iter(metrics.values()))[0]
    return TaskResult(
        format=task.format,
        prompts_sha256="",
        metrics=metrics,
        chance=chance(items),
        correct=round(first * len(items)) if form.counted else None,
        note=task.note,
        samples=samples,
    )


def _row_result(rows: list[Row], task: Task, values: list[list[float]]) -> TaskResult:
    return TaskResult(
        format=task.format,
        prompts_sha256="",
        metrics=bits_per_byte(rows, [value for (value,) in values]),
        chance=None,
        correct=None,
        note=task.note,
        samples=[Sample(None, None, value) for value in values],
    )
