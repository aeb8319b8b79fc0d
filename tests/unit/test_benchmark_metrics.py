"""Our metrics against lm-eval's own evaluator, which gets the same items and likelihoods: equal to the bit."""

import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

from scripts.benchmark.items import Item
from scripts.benchmark.metrics import Graded, grade
from scripts.benchmark.render import FORMATS, Format
from scripts.recipe.benchmark import BenchmarkSpec, Task
from tests.conftest import ROOT
from tests.demo_benchmarks import FOLDER
from tests.unit.benchmark_tiny_model import write_model


class Replay(LM):  # type: ignore[misc]  # lm-eval has no type marker
    """A model that has answered already."""

    def __init__(self, items: Sequence[Item], values: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.asked = [request for item in items for request in item.requests()]
        self.answers = [(value, False) for found in values for value in found]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        assert [tuple(request.args) for request in requests] == self.asked
        return self.answers

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise AssertionError("never asked: the tasks are multiple choice")

    def generate_until(self, requests: list[Any]) -> list[str]:
        raise AssertionError("never asked: the tasks are multiple choice")


def by_lm_eval(items: Sequence[Item], form: Format, values: Sequence[Sequence[float]]) -> Graded:
    """Let lm-eval's evaluator score a zero-shot task of these items."""

    def own_score(document: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
        assert form.score is not None
        return {m: form.score([ll for ll, _ in results], items[document["item"]]) for m in form.metrics.values()}

    def golds(labels: Sequence[float]) -> int | list[int]:
        best = [i for i, label in enumerate(labels) if label == max(labels)]
        return best if len(best) > 1 else best[0]

    ends = bool(items[0].contexts)  # lm-eval's word is multiple input: the choices are contexts, gold is the "text"
    rows = [{**asdict(item), "item": number} for number, item in enumerate(items)]
    config = {
        "task": "t",
        "output_type": "multiple_choice",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": lambda document: document["gold"] if ends else document["context"],
        "doc_to_choice": lambda document: document["contexts"] if ends else document["choices"],
        "doc_to_target": lambda document: document["continuation"] if ends else golds(document["labels"]),
        "target_delimiter": items[0].delimiter,
        "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in form.metrics.values()],
        "process_results": own_score if form.score is not None else None,
    }
    tasks = {"tasks": {"t": ConfigurableTask(config=config)}, "groups": {}, "group_map": {}}
    output: Any = evaluate(Replay(items, values), tasks, cache_requests=False, log_samples=True)
    results, samples = output["results"]["t"], sorted(output["samples"]["t"], key=lambda sample: sample["doc_id"])

    def error(metric: str) -> float | None:
        found = results[f"{metric}_stderr,none"]
        return float(found) if isinstance(found, int | float) else None

    names = form.metrics.items()
    return Graded(
        {ours: (float(results[f"{theirs},none"]), error(theirs)) for ours, theirs in names},
        [{ours: float(sample[theirs]) for ours, theirs in names} for sample in samples],
    )


def drawn(form: str, count: int, several: bool) -> tuple[list[Item], list[list[float]]]:
    """Return items of 2 to 5 choices of unequal lengths, and likelihoods with ties; `several` right ones, or one."""
    stream = random.Random(f"{form} {count}")
    items, values = [], []
    for number in range(count):
        size = stream.randint(2, 5)
        choices = tuple("é" * stream.randint(1, 3) + "word " * stream.randint(1, 6) + str(i) for i in range(size))
        right = stream.sample(range(size), 2 if several and size > 2 else 1)
        labels = tuple(float(i in right) for i in range(size))
        if form == "winogrande":
            contexts = tuple(f"{number} {choice}" for choice in choices)
            items.append(Item("", choices, right[0], tuple(map(float, labels)), " ", contexts, "and so on"))
        else:
            items.append(Item(f"Question {number}:", choices, labels.index(1.0), labels))
        values.append([-stream.choice([1.0, 2.0, 3.25, 40.5, 333.3]) - stream.randint(0, 2) / 3 for _ in choices])
    return items, values


def check(ours: Graded, theirs: Graded) -> None:
    """Compare: each item's scores to the bit, means and errors but for the last digit, which in lm-eval is Python's."""
    assert ours.scores == theirs.scores and ours.metrics.keys() == theirs.metrics.keys()
    for metric, (value, error) in ours.metrics.items():
        value_of_theirs, error_of_theirs = theirs.metrics[metric]
        assert value == pytest.approx(value_of_theirs, rel=1e-14, abs=0)
        assert error == (None if error_of_theirs is None else pytest.approx(error_of_theirs, rel=1e-14, abs=0))


@pytest.mark.parametrize("form", ["arc", "boolq", "winogrande", "bigbench", "truthfulqa_mc1", "truthfulqa_mc2"])
@pytest.mark.parametrize("count", [1, 2, 57])
def test_metrics_are_those_of_lm_eval(form: str, count: int) -> None:
    items, values = drawn(form, count, several=form == "truthfulqa_mc2")
    ours = grade(items, FORMATS[form], values)
    check(ours, by_lm_eval(items, FORMATS[form], values))
    if count == 57 and form == "arc":
        assert 0 < ours.metrics["acc"][0] < 1 and ours.metrics["acc"] != ours.metrics["acc_norm"]


def test_any_of_several_right_choices_is_right() -> None:
    items, values = drawn("arc", 40, several=True)
    items, values = zip(*((i, v) for i, v in zip(items, values, strict=True) if sum(i.labels) == 2), strict=True)
    check(grade(items, FORMATS["arc"], values), by_lm_eval(items, FORMATS["arc"], values))


PROGRAM = """
import sys
from pathlib import Path
from scripts.artifact.stage import Job
from scripts.benchmark.build import build
from scripts.recipe.benchmark import BenchmarkSpec
spec, model, files, out = sys.argv[1:]
folders = {"create/tiny": Path(model), "download/mini": Path(files)}
build(Job(BenchmarkSpec.model_validate_json(spec), folders, Path(out), Path(out), 1))
print([name for name in ("scipy", "sklearn", "datasets", "nltk", "sacrebleu") if name in sys.modules])
"""


def test_a_job_starts_without_libraries_that_it_does_not_need(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    tasks = {"sums": Task(format="multiple_choice", file="arithmetic.jsonl", limit=2)}
    spec = BenchmarkSpec(model="tiny", suite="mini", tasks=tasks, device="cpu", dtype="float32")
    command = [sys.executable, "-c", PROGRAM, spec.model_dump_json(), str(write_model(tmp_path / "tiny")), str(FOLDER)]
    done = subprocess.run([*command, str(tmp_path / "out")], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
