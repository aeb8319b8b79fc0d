"""From a task of a suite to frozen items, and how each format is scored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.artifact.stage import StageError
from scripts.benchmark.formats import agieval, bigbench, multiple_choice, truthfulqa
from scripts.benchmark.grade import argmax, mc2, tie_argmax
from scripts.benchmark.items import Item
from scripts.recipe.benchmark import Task

Pick = Callable[[list[float]], int]


@dataclass(frozen=True)
class Format:
    """How one kind of task file is rendered and scored."""

    render: Callable[[Path], list[Item]]
    metrics: Mapping[str, str]
    """{our name, as the announcement prints it: lm-eval's name}."""
    bos: bool
    """Whether the context begins with the tokenizer's BOS. The old harness, which made the published figures,
    passed add_special_tokens=False; our own tasks begin like the rows that the models were trained on."""
    pick: Pick = argmax
    """The chosen index of an item, from its log-likelihoods."""
    score: Callable[[list[float], Item], float] | None = None
    """An item's score where lm-eval has none of this kind; its only metric."""
    counted: bool = True
    """Whether the first metric is a count of right items."""


def _bigbench_grade(loglikelihoods: list[float], item: Item) -> float:
    return item.labels[tie_argmax(loglikelihoods)]


def _mc2(loglikelihoods: list[float], item: Item) -> float:
    return mc2(loglikelihoods, item.labels)


_ACCURACY = {"acc": "acc", "acc_norm": "acc_norm"}
_GRADE = {"multiple_choice_grade": "multiple_choice_grade"}
FORMATS = {
    "multiple_choice": Format(multiple_choice.render, _ACCURACY, bos=True),
    "truthfulqa_mc1": Format(truthfulqa.render_mc1, {"mc1": "acc"}, bos=False),
    "truthfulqa_mc2": Format(truthfulqa.render_mc2, {"mc2": "mc2"}, bos=False, score=_mc2, counted=False),
    "bigbench": Format(bigbench.render, _GRADE, bos=False, pick=tie_argmax, score=_bigbench_grade),
    "agieval": Format(agieval.render, _ACCURACY, bos=False),
}


def render(name: str, task: Task, files: Path | None) -> list[Item]:
    """Return the items of one task that will be scored, in the file's order.

    Args:
        name: the task's name, for messages.
        task: its entry in the suite.
        files: folder of the suite's download.

    Raises:
        StageError: no file, a bad row, or another number of items than `expect_items`.
    """
    if task.file is None or files is None:
        raise StageError(f"task {name}: format {task.format} needs `file` and a suite with `fetch`")
    items = FORMATS[task.format].render(files / task.file)
    if not items:
        raise StageError(f"task {name}: {task.file} holds no items")
    check_count(name, task, len(items))
    return items[: task.limit]


def check_count(name: str, task: Task, found: int) -> None:
    """Raise StageError if the file holds another number of items than the suite expects."""
    if task.expect_items is not None and found != task.expect_items:
        raise StageError(
            f"task {name}: found {found} items, expect_items is {task.expect_items}: the data has drifted; "
            "pin the published file in the suite's fetch, or change expect_items knowingly"
        )
