"""One suite on one model, or a shard of it: render every task, load the model once, score; or join shards' scores."""

import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.artifact.stage import Job, StageError
from scripts.benchmark.heldout import bits_per_byte, bootstrap_intervals, score_rows
from scripts.benchmark.identity import digests
from scripts.benchmark.items import Item, chance, chance_variance
from scripts.benchmark.metrics import grade
from scripts.benchmark.output import Sample, TaskResult, write_generations, write_results
from scripts.benchmark.replies import mean_and_error, measure
from scripts.benchmark.shards import Scores, TaskScores, join_shards, shard_groups, write_shard
from scripts.benchmark.work import Work, form_of, prepare
from scripts.recipe.benchmark import BenchmarkSpec, Task
from scripts.recipe.checkpoints import checkpoint_folder
from scripts.recipe.hardware import pin_cpu
from scripts.recipe.start import arrow_alone, left_out, uncollected

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
    """Write `results.json` and `samples.parquet` (docs/formats.md) of one model on one suite, or a shard's scores.

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
        name: prepare(name, task, files.get(task.dataset or spec.suite), mixes) for name, task in spec.tasks.items()
    }
    prompts = {name: found.prompts_sha256() for name, found in work.items()}
    if spec.combines:
        sizes = {name: len(found) for name, found in work.items()}
        scores = join_shards(list(job.of_stage("benchmark").values()), sizes, prompts)
    else:
        scores = _score(job, work)
    arrow_alone()
    job.counts["truncated_requests"] = {name: task.truncated for name, task in scores.tasks.items()}
    job.counts["max_length"] = scores.max_length
    job.counts["items"] = {name: len(task.loglikelihoods) for name, task in scores.tasks.items()}
    if spec.shard is not None:
        write_shard(job.out, scores, prompts)
        return
    results = {}
    for name, task in spec.tasks.items():
        found = scores.tasks[name]
        cut = f"{found.truncated} requests lost the left end of their context at {scores.max_length} tokens."
        result = replace(_result(name, task, work[name], found), prompts_sha256=prompts[name])
        results[name] = replace(result, note=f"{task.note} {cut}".strip()) if found.truncated else result
        print(f"{name}: {len(found.loglikelihoods)} items. {cut}")
    write_results(job.out, spec.subject, spec.suite, results, protocol=spec.protocol, digests=scores.digests)
    write_generations(job.out, {name: task.replies for name, task in scores.tasks.items() if task.replies})


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
    if job.spec.checkpoint is None:
        return folders[0]
    folder = folders[0] / checkpoint_folder(job.spec.checkpoint)
    if not folder.is_dir():
        raise StageError(f"{folder}: the training kept no such checkpoint; train {job.spec.model} again")
    return folder


def _score(job: Job[BenchmarkSpec], work: dict[str, Work]) -> Scores:
    """Load the model and score this job's groups of every task."""
    # torch, transformers and lm-eval are imported here: bad data is reported before their 4 s, and after the pins.
    started = time.perf_counter()
    spec, folder = job.spec, _model_folder(job)
    with left_out("scipy"), uncollected():
        from scripts.benchmark.model import load_model

        model = load_model(folder, spec)
    job.facts["load_s"] = time.perf_counter() - started
    groups = {name: found.groups(spec.batch_size) for name, found in work.items()}
    sizes = {name: found.sizes() for name, found in work.items()}
    chosen = shard_groups(groups, sizes, spec.shards, spec.shard)
    data = {name: path for name, path in job.of_stage("download").items() if path != folder}
    scores, job.facts["task_s"] = Scores(model.max_length, {}, digests(folder, data)), {}
    for name, found in work.items():
        started, before = time.perf_counter(), model.truncated
        scores.tasks[name] = _score_task(model, name, spec.tasks[name], found, chosen[name])
        scores.tasks[name].truncated = model.truncated - before
        if not all(math.isfinite(value) for item in scores.tasks[name].loglikelihoods.values() for value in item):
            raise StageError(f"task {name}: a likelihood isn't finite: the model's weights overflow in {spec.dtype}")
        job.facts["task_s"][name] = time.perf_counter() - started
    return scores


def _score_task(model: "Model", name: str, task: Task, work: Work, groups: list[range]) -> TaskScores:
    from scripts.benchmark.generate import converse, extract  # imports torch

    order = [i for group in groups for i in group]
    if work.rows:
        values = [[value] for group in groups for value in score_rows(model, [work.rows[i] for i in group])]
    elif work.items:
        model.use_bos(form_of(name, task).bos)
        found = model.score_items([item.requests() for item in work.items], groups)
        values = [[value for value, _ in item] for item in found]
    elif task.format == "extraction":
        values = [list(pair) for pair in extract(model, [work.conversations[i] for i in order])]
    else:
        replies = {i: converse(model, work.conversations[i], task.turns, task.max_new_tokens) for i in order}
        return TaskScores({i: [] for i in order}, replies=replies)
    return TaskScores(dict(zip(order, values, strict=True)))


def _result(name: str, task: Task, work: Work, scores: TaskScores) -> TaskResult:
    values = [scores.loglikelihoods[i] for i in range(len(work))]
    if work.items:
        return _item_result(name, work.items, task, values)
    intervals: dict[str, tuple[float, float]] = {}
    if work.rows:
        metrics = bits_per_byte(work.rows, [value for (value,) in values])
        intervals = bootstrap_intervals(work.rows, [value for (value,) in values])
    elif task.format == "extraction":
        metrics = {
            "extracted": mean_and_error([exact for _, exact in values]),
            "loglikelihood": mean_and_error([value for value, _ in values]),
        }
    else:
        metrics = measure([scores.replies[i] for i in range(len(work))])
    samples = [Sample(None, None, value) for value in values]
    return TaskResult(task.format, "", metrics, None, None, task.note, samples, intervals=intervals)


def _item_result(name: str, items: list[Item], task: Task, values: list[list[float]]) -> TaskResult:
    form = form_of(name, task)
    graded = grade(items, form, values)
    samples = [
        Sample(form.pick(ll), item.gold, ll, scores)
        for ll, item, scores in zip(values, items, graded.scores, strict=True)
    ]
    first = next(iter(graded.metrics.values()))[0]
    guessing = task.format != "refusal"
    return TaskResult(
        format=task.format,
        prompts_sha256="",
        metrics=graded.metrics,
        chance=chance(items) if guessing else None,
        correct=round(first * len(items)) if form.counted else None,
        note=task.note,
        samples=samples,
        chance_variance=chance_variance(items) if guessing else None,
        shots=task.shots,
        bos=form.bos,
        upstream_bug=task.upstream_bug,
        group=task.group,
    )
