"""Frozen items as an lm-eval task: lm-eval computes likelihoods, acc, acc_norm and their standard errors."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from datasets import Dataset
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

from scripts.artifact.stage import StageError
from scripts.benchmark.items import Item
from scripts.benchmark.render import Format


@dataclass(frozen=True)
class Graded:
    """What came out for one task."""

    metrics: dict[str, tuple[float, float | None]]
    """{our metric: (value, standard error)}."""
    scores: list[dict[str, float]]
    """{our metric: score} of each item; a metric's value is their mean."""


class Replay(LM):  # type: ignore[misc]  # lm-eval has no type marker
    """A model that has answered already: lm-eval asks it, and gets the likelihoods that shards or one job found."""

    def __init__(self, name: str, requests: Sequence[tuple[str, str]], loglikelihoods: Sequence[float]) -> None:
        super().__init__()
        self.name, self.requests, self.loglikelihoods = name, requests, loglikelihoods

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Return the known likelihoods; StageError if lm-eval asks for other prompts than the frozen ones."""
        if [tuple(request.args) for request in requests] != list(self.requests):
            raise StageError(
                f"task {self.name}: lm-eval changed the frozen prompts; this lm-eval version can't be used"
            )
        return [(value, False) for value in self.loglikelihoods]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Never asked: the tasks are multiple choice."""
        raise StageError(f"task {self.name}: lm-eval asked for a rolling likelihood; this version can't be used")

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Never asked: the tasks are multiple choice."""
        raise StageError(f"task {self.name}: lm-eval asked for text; this version can't be used")


def lm_eval_metrics(
    name: str, items: Sequence[Item], form: Format, loglikelihoods: Sequence[Sequence[float]]
) -> Graded:
    """Return a task's metrics and scores as lm-eval computes them from the likelihood of each choice of each item.

    Raises:
        StageError: lm-eval asked for other prompts than the frozen ones.
    """
    task = ConfigurableTask(config=_config(name, items, form))
    requests = [request for item in items for request in item.requests()]
    replay = Replay(name, requests, [value for values in loglikelihoods for value in values])
    output: Any = evaluate(
        replay, {"tasks": {name: task}, "groups": {}, "group_map": {}}, cache_requests=False, log_samples=True
    )
    results, samples = output["results"][name], sorted(output["samples"][name], key=lambda sample: sample["doc_id"])
    return Graded(
        {
            ours: (float(results[f"{theirs},none"]), _number(results[f"{theirs}_stderr,none"]))
            for ours, theirs in form.metrics.items()
        },
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
