"""From a task of a suite to frozen items, and how each format is scored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.artifact.stage import StageError
from scripts.benchmark.formats import agieval, bigbench, multiple_choice, questions, truthfulqa
from scripts.benchmark.grade import argmax, mc2, tie_argmax
from scripts.benchmark.items import Item
from scripts.benchmark.native import render_native
from scripts.benchmark.shots import historical_shots, with_shots
from scripts.recipe.benchmark import Task

Pick = Callable[[list[float]], int]
Render = Callable[[Task, Path], list[Item]]
"""(task, folder of its data) -> items."""


@dataclass(frozen=True)
class Format:
    """How one kind of task file is rendered and scored."""

    render: Render
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


def _file(folder: Path, task: Task, key: str = "file") -> Path:
    name = getattr(task, key)
    if name is None:
        raise StageError(f"format {task.format} needs `{key}`: a file of the task's data")
    return folder / str(name)


def _plain(render_file: Callable[[Path], list[Item]]) -> Render:
    """A format whose items come from one file, zero-shot."""

    def render_plain(task: Task, folder: Path) -> list[Item]:
        if task.shots:
            raise StageError(f"shots is {task.shots}; format {task.format} is zero-shot")
        return render_file(_file(folder, task))

    return render_plain


def _shuffled(render_file: Callable[[Path], list[Item]]) -> Render:
    """As `_plain`, in the order of the old harness, of which `limit` takes the beginning."""

    def render_shuffled(task: Task, folder: Path) -> list[Item]:
        items = _plain(render_file)(task, folder)
        return [items[i] for i, _ in historical_shots(len(items), 0, 0)]

    return render_shuffled


def _sampled(read: questions.Reader) -> Render:
    """Questions after shots that the old harness' stream picks; without shots in the file's order."""

    def render_sampled(task: Task, folder: Path) -> list[Item]:
        asked = read(_file(folder, task))
        if not task.shots:
            return [question.item(question.text) for question in asked]
        solved = [question.solved() for question in read(_file(folder, task, "shots_file"))]
        order = historical_shots(len(asked), len(solved), task.shots)
        return [asked[i].item(with_shots([solved[s] for s in picked], asked[i].text)) for i, picked in order]

    return render_sampled


def _render_mmlu(task: Task, folder: Path) -> list[Item]:
    """Questions after the first examples of the subject's dev file and the line that names the subject."""
    asked = questions.read_mmlu(_file(folder, task))
    solved = [q.solved() for q in questions.read_mmlu(_file(folder, task, "shots_file"))] if task.shots else []
    if len(solved) < task.shots:
        raise StageError(f"{task.shots_file}: needs {task.shots} solved examples, found {len(solved)}")
    order = historical_shots(len(asked), 0, 0)
    return [
        asked[i].item(with_shots(solved[: task.shots], asked[i].text, questions.mmlu_description(asked[i].subject)))
        for i, _ in order
    ]


_ACCURACY = {"acc": "acc", "acc_norm": "acc_norm"}
_GRADE = {"multiple_choice_grade": "multiple_choice_grade"}
_MC2 = {"mc2": "mc2"}
FORMATS = {
    "multiple_choice": Format(_plain(multiple_choice.render), _ACCURACY, bos=True),
    "truthfulqa_mc1": Format(_plain(truthfulqa.render_mc1), {"mc1": "acc"}, bos=False),
    "truthfulqa_mc2": Format(_plain(truthfulqa.render_mc2), _MC2, bos=False, score=_mc2, counted=False),
    "ollv1_truthfulqa_mc1": Format(_shuffled(truthfulqa.render_ollv1_mc1), {"mc1": "acc"}, bos=False),
    "ollv1_truthfulqa_mc2": Format(_shuffled(truthfulqa.render_ollv1_mc2), _MC2, bos=False, score=_mc2, counted=False),
    "bigbench": Format(_shuffled(bigbench.render), _GRADE, bos=False, pick=tie_argmax, score=_bigbench_grade),
    "agieval": Format(_shuffled(agieval.render), _ACCURACY, bos=False),
    "arc": Format(_sampled(questions.read_arc), _ACCURACY, bos=False),
    "hellaswag": Format(_sampled(questions.read_hellaswag), _ACCURACY, bos=False),
    "mmlu": Format(_render_mmlu, _ACCURACY, bos=False),
    "boolq": Format(_sampled(questions.read_boolq), {"acc": "acc"}, bos=False),
    "openbookqa": Format(_sampled(questions.read_openbookqa), _ACCURACY, bos=False),
    "piqa": Format(_sampled(questions.read_piqa), _ACCURACY, bos=False),
    "winogrande": Format(_plain(questions.render_winogrande), {"acc": "acc"}, bos=False),
    # lm-eval 0.4.13 leaves BOS to the tokenizer; Llama's adds it.
    "lm_eval": Format(render_native, _ACCURACY, bos=True),
    "lm_eval_mc1": Format(render_native, {"mc1": "acc"}, bos=True),
    "lm_eval_mc2": Format(render_native, _MC2, bos=True, score=_mc2, counted=False),
}


def form_of(name: str, task: Task) -> Format:
    """Return the task's format with the task's own choice of BOS and metrics.

    Raises:
        StageError: a metric that the format hasn't got.
    """
    form = FORMATS[task.format]
    unknown = [metric for metric in task.metrics if metric not in form.metrics]
    if unknown:
        raise StageError(
            f"task {name}: metrics: found {unknown[0]!r}; format {task.format} has {', '.join(form.metrics)}"
        )
    metrics = {metric: form.metrics[metric] for metric in task.metrics} or form.metrics
    return replace(form, metrics=metrics, bos=form.bos if task.bos is None else task.bos)


def render(name: str, task: Task, files: Path | None) -> list[Item]:
    """Return the items of one task that will be scored, in the order of its protocol.

    Args:
        name: the task's name, for messages.
        task: its entry in the suite.
        files: folder of the task's data.

    Raises:
        StageError: no file, a bad row, or another number of items than `expect_items`.
    """
    if files is None or (task.file is None and task.lm_eval is None):
        raise StageError(f"task {name}: format {task.format} needs `file` and a suite with `fetch`, or a `dataset`")
    try:
        items = FORMATS[task.format].render(task, files)
    except StageError as error:
        raise StageError(f"task {name}: {error}") from None
    if not items:
        raise StageError(f"task {name}: {task.file or task.lm_eval} holds no items")
    check_count(name, task, len(items))
    return items[: task.limit]


def check_count(name: str, task: Task, found: int) -> None:
    """Raise StageError if the file holds another number of items than the suite expects."""
    if task.expect_items is not None and found != task.expect_items:
        raise StageError(
            f"task {name}: found {found} items, expect_items is {task.expect_items}: the data has drifted; "
            "pin the published file in the suite's fetch, or change expect_items knowingly"
        )
