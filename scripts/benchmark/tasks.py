"""Frozen items as an lm-eval task: lm-eval computes likelihoods, acc, acc_norm and their standard errors."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

from scripts.artifact.stage import StageError
from scripts.benchmark.items import Item
from scripts.benchmark.model import Model
from scripts.benchmark.render import Format


@dataclass(frozen=True)
class Scored:
    """What came out for one task."""

    metrics: dict[str, tuple[float, float | None]]
    """{our metric: (value, standard error)}."""
    loglikelihoods: list[list[float]]
    """Natural log-likelihood of each choice of each item, in order."""
    scores: list[dict[str, float]]
    """{our metric: score} of each item; a metric's value is their mean."""


def score_items(model: Model, name: str, items: Sequence[Item], form: Format) -> Scored:
    """Score one task alone, so that no other task of the suite shares, and changes, its batches.

    Raises:
        StageError: lm-eval sent other prompts than the frozen ones.
    """
    model.use_bos(form.bos)
    task = ConfigurableTask(config=_config(name, items, form))
    output: Any = evaluate(
        model, {"tasks": {name: task}, "groups": {}, "group_map": {}}, cache_requests=False, log_samples=True
    )
    samples = sorted(output["samples"][name], key=lambda sample: sample["doc_id"])
    if [[tuple(pair) for pair in s["arguments"]] for s in samples] != [item.requests() for item in items]:
        raise StageError(f"task {name}: lm-eval changed the frozen prompts; this lm-eval version can't be used")
    results = output["results"][name]
    return Scored(
        {
            ours: (float(results[f"{theirs},none"]), _number(results[f"{theirs}_stderr,none"]))
            for ours, theirs in form.metrics.items()
        },
        [[float(loglikelihood) for loglikelihood, _ in sample["filtered_resps"]] for sample in samples],
        [{ours: float(sample[theirs]) for ours, theirs in form.metrics.items()} for sample in samples],
    )


def _config(name: str, items: Sequence[Item], form: Format) -> dict[str, Any]:
    """Return the configuration of a zero-shot task: whatever shots there are stand in the frozen context."""

    def grade(document: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
        assert form.score is not None
        item = items[document["item"]]
        return {metric: form.score([ll for ll, _ in results], item) for metric in form.metrics.values()}

    ends = bool(items[0].contexts)  # lm-eval's word is multiple input: the choices are contexts, gold is the "text"
    metrics = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in form.metrics.values()]
    rows = [{**asdict(item), "item": number} for number, item in enumerate(items)]
    return {
        "task": name,
        "output_type": "multiple_choice",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": lambda document: document["gold"] if ends else document["context"],
        "doc_to_choice": lambda document: document["contexts"] if ends else document["choices"],
        "doc_to_target": lambda document: document["continuation"] if ends else _golds(document["labels"]),
        "target_delimiter": items[0].delimiter,
        "metric_list": metrics,
        "process_results": grade if form.score is not None else None,
    }


def _golds(labels: Sequence[float]) -> int | list[int]:
    """Return the index of the best choice, or of all of them where several are equally right."""
    best = [index for index, label in enumerate(labels) if label == max(labels)]
    return best if len(best) > 1 else best[0]


def _number(value: object) -> float | None:
    """Return a standard error, or None where lm-eval says N/A (a single item)."""
    return float(value) if isinstance(value, int | float) else None
