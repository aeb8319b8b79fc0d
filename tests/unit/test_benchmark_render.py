"""Rendering: exact prompts, published item counts, and what bad files are told."""

import json
import os
from pathlib import Path

import pytest
import yaml

from scripts.artifact.digest import sha256_file
from scripts.artifact.stage import StageError
from scripts.benchmark.formats import agieval, bigbench, multiple_choice, truthfulqa
from scripts.benchmark.items import Item, chance, items_sha256, make_item
from scripts.benchmark.render import render
from scripts.recipe.benchmark import DataSet, Task
from scripts.recipe.models import Suite
from tests.demo_benchmarks import FOLDER, TASKS, rows, text

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("ATELIER_REAL_DATA", ROOT.parent / "shared" / "data")) / "benchmarks"
SUITES = {p.stem: Suite.model_validate(yaml.safe_load(p.read_text())) for p in (ROOT / "config/suites").glob("*.yaml")}
PLACES = {"big-bench": "bigbench", "agieval": "agieval", "truthfulqa": "truthfulqa"}
REAL_TASKS = [(suite, task) for suite in PLACES for task in SUITES[suite].tasks]


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(("suite", "name"), REAL_TASKS)
def test_real_files_have_the_published_number_of_items(suite: str, name: str) -> None:
    folder = REAL / PLACES[suite]
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set ATELIER_REAL_DATA")
    task = SUITES[suite].tasks[name]
    if not (folder / str(task.file)).is_file():
        pytest.skip(f"{folder / str(task.file)} is absent: ATELIER_REAL_DATA holds four of the eight AGIEval sets")
    assert task.expect_items is not None and len(render(name, task, folder)) == task.expect_items
    fetch = SUITES[suite].fetch
    assert fetch is not None and task.file is not None
    pin = fetch.files[task.file]
    assert pin is not None and pin.sha256 == sha256_file(folder / task.file)
    assert pin.bytes == (folder / task.file).stat().st_size


def test_suites_name_only_files_they_fetch() -> None:
    for suite in SUITES.values():
        files = set(suite.fetch.files) if suite.fetch else set()
        assert {task.file for task in suite.tasks.values() if task.file and not task.dataset} == files
        for task in suite.tasks.values():
            if task.dataset:
                data = DataSet.model_validate(
                    yaml.safe_load((ROOT / f"config/datasets/{task.dataset}.yaml").read_text())
                )
                assert {task.file, task.shots_file} - {None} <= set(
                    data.fetch.files
                ) and "README.md" in data.fetch.files


@pytest.mark.parametrize("task", TASKS)
def test_demo_files_are_what_the_generator_writes_and_the_suite_pins(task: str) -> None:
    path = FOLDER / f"{task}.jsonl"
    assert path.read_text(encoding="utf-8") == text(task)
    fetch = SUITES["demo"].fetch
    assert fetch is not None
    pin = fetch.files[path.name]
    assert pin is not None and pin.sha256 == sha256_file(path)
    assert len({str(row["question"]) for row in rows(task)}) == 40


@pytest.mark.parametrize("task", TASKS)
def test_demo_answers_are_spread_over_all_positions(task: str) -> None:
    counts = [[row["answer"] for row in rows(task)].count(i) for i in range(len(rows(task)[0]["choices"]))]  # type: ignore[arg-type]
    assert min(counts) >= 4


MINI = {
    "metrics": ["multiple_choice_grade"],
    "examples": [
        {"input": "Which is a fruit?", "target_scores": {"stone": 0, "pear": 1, "cloud": 0, "boot": 0}},
        {"input": "Which is a fruit?", "target_scores": {"stone": 0, "pear": 1, "cloud": 0, "boot": 0}},
        {"input": "Which is blue?", "target_scores": {"the sky": 1, "grass": 0, "milk": 0}},
    ],
}


def test_bigbench_prompt_with_defaults_and_appended_choices(tmp_path: Path) -> None:
    first, second = bigbench.render(write(tmp_path / "mini.json", MINI))
    # sorted: boot, cloud, pear, stone; the order of four choices is always [1, 3, 0, 2]
    assert first.context == (
        "\nQ: Which is a fruit?\n  choice: cloud\n  choice: stone\n  choice: boot\n  choice: pear\nA: "
    )
    assert first.requests()[1] == (first.context, "pear") and first.gold == 1
    assert second.context == "\nQ: Which is blue?\n  choice: grass\n  choice: milk\n  choice: the sky\nA: "
    assert [c for _, c in second.requests()] == ["the sky", "grass", "milk"]


def test_bigbench_prompt_with_everything_overridden(tmp_path: Path) -> None:
    task = {
        **MINI,
        "task_prefix": "Choose.\n",
        "example_input_prefix": "<",
        "example_output_prefix": "> ",
        "append_choices_to_input": False,
    }
    assert bigbench.render(write(tmp_path / "mini.json", task))[0].context == "Choose.\n<Which is a fruit?> "


def test_agieval_prompt(tmp_path: Path) -> None:
    row = {
        "passage": "Tea is hot. ",
        "question": "What is hot?",
        "options": ["(A)Tea", "(B)Ice", "(C)Snow"],
        "label": "A",
    }
    other = {**row, "passage": None, "label": "C"}
    path = tmp_path / "mini.jsonl"
    path.write_text("\n".join(map(json.dumps, (row, other))) + "\n", encoding="utf-8")
    first, second = agieval.render(path)
    assert first.context == (
        "Tea is hot. Q: What is hot? Answer Choices: (A)Tea (B)Ice (C)Snow\nA: Among A through C, the answer is"
    )
    assert second.context.startswith("Q: What is hot?") and (first.gold, second.gold) == (0, 2)
    assert first.requests()[0][1] == " (A)Tea"


def test_truthfulqa_prompt_and_labels(tmp_path: Path) -> None:
    row = {"question": "Is the sun cold?", "mc1_targets": {"No.": 1, "Yes.": 0}}
    path = write(tmp_path / "mc.json", [{**row, "mc2_targets": {"No.": 1, "It is hot.": 1, "Yes.": 0}}])
    (one,), (two,) = truthfulqa.render_mc1(path), truthfulqa.render_mc2(path)
    assert one.context == two.context == "Q: Is the sun cold?\nA:"
    assert (one.labels, two.labels) == ((1.0, 0.0), (1.0, 1.0, 0.0))
    assert chance([one]) == 0.5 and chance([two]) == pytest.approx(2 / 3)


def test_multiple_choice_prompt_and_chance() -> None:
    items = multiple_choice.render(FOLDER / "arithmetic.jsonl")
    assert items[0].context == "Question: What is 4 plus 4?\nAnswer:" and items[0].requests()[3][1] == " 8"
    assert chance(items) == 0.25


def test_digest_covers_text_order_and_labels() -> None:
    item = make_item("x", "Q: a\nA:", ["b", "c"], [1, 0])
    others = [
        Item(item.context + " ", item.choices, 0, item.labels),
        Item(item.context, ("c", "b"), 0, item.labels),
        make_item("x", item.context, item.choices, [0, 1]),
        make_item("x", item.context, item.choices, [1, 0], delimiter=""),
    ]
    assert len({items_sha256([other]) for other in [item, *others]}) == 5
    assert items_sha256([item, others[0]]) != items_sha256([others[0], item])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "q", "choices": ["a", "b"], "answer": 2}', "answer: found 2"),
        ('{"question": "q", "choices": ["a", "b"], "answer": true}', "answer: found True"),
        ('{"question": "q", "choices": ["a", "a"], "answer": 0}', "all different"),
        ('{"question": "q", "choices": ["a", ""], "answer": 0}', "none empty"),
        ('{"question": 3, "choices": ["a", "b"], "answer": 0}', "question: found 3"),
        ('{"question": "q", "choices": "ab", "answer": 0}', "must be a list of strings"),
        ('{"question": "\\ud800", "choices": ["a", "b"], "answer": 0}', "lone surrogate"),
        ("[]", "must be a JSON object"),
        ("", "not a JSON object"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, line: str, said: str) -> None:
    good = '{"question": "q", "choices": ["a", "b"], "answer": 0}\n'
    path = tmp_path / "t.jsonl"
    path.write_text(good + line + "\n", encoding="utf-8")
    with pytest.raises(StageError, match="t.jsonl:2") as caught:
        multiple_choice.render(path)
    assert said in str(caught.value)


def test_drifted_data_and_missing_files_are_refused(tmp_path: Path) -> None:
    task = Task(format="multiple_choice", file="arithmetic.jsonl", expect_items=41)
    with pytest.raises(StageError, match="found 40 items, expect_items is 41"):
        render("sums", task, FOLDER)
    with pytest.raises(StageError, match="cannot be read"):
        render("sums", task, tmp_path)
    with pytest.raises(StageError, match="needs `file`"):
        render("sums", task.model_copy(update={"file": None}), FOLDER)


def test_limit_of_a_historical_protocol_takes_the_first_of_the_old_order(tmp_path: Path) -> None:
    """b281b09 shuffles the documents by Random(42) before it limits them, whatever the task."""
    examples = [{"input": f"Q{n}", "target_scores": {"a": 1, "b": 0}} for n in range(10)]
    write(tmp_path / "task.json", {"metrics": ["multiple_choice_grade"], "examples": examples})
    found = render("t", Task(format="bigbench", file="task.json", limit=4), tmp_path)
    order = [7, 3, 2, 8, 5, 6, 9, 4, 0, 1]  # random.Random(42).shuffle(list(range(10)))
    assert [next(n for n in range(10) if f"Q{n}\n" in item.context) for item in found] == order[:4]


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("world_religions/test-00000-of-00001.jsonl", "world religions"),
        ("world_religions_test.jsonl", "world religions"),
    ],
)
def test_mmlu_names_the_subject_where_the_rows_do_not(tmp_path: Path, path: str, subject: str) -> None:
    (tmp_path / path).parent.mkdir(exist_ok=True)
    write(tmp_path / path, {"question": "Who?", "choices": ["a", "b", "c", "d"], "answer": 1})
    (item,) = render("t", Task(format="mmlu", file=path), tmp_path)
    assert f"about {subject}." in item.context


def test_limit_takes_the_first_items_after_the_count_is_checked() -> None:
    task = Task(format="multiple_choice", file="arithmetic.jsonl", expect_items=40, limit=3)
    assert render("sums", task, FOLDER) == multiple_choice.render(FOLDER / "arithmetic.jsonl")[:3]
