"""What docs/benchmarks.md says of the rows of each format is what the formats read."""

import json
import re
from pathlib import Path

import pytest

from scripts.benchmark.render import FORMATS, render
from scripts.recipe.benchmark import Task
from tests.conftest import ROOT

SECTION = (ROOT / "docs" / "benchmarks.md").read_text().split("## Add a suite")[1]
ROWS = {
    "multiple_choice": {"question": "Who?", "choices": ["a", "b"], "answer": 1},
    "agieval": {"passage": None, "question": "Who?", "options": ["(A)a", "(B)b"], "label": "B"},
    "arc": {"question": "Who?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
    "openbookqa": {"question_stem": "Who", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
    "hellaswag": {"ctx_a": "He", "ctx_b": "she", "activity_label": "Tea", "endings": ["a", "b"], "label": 1},
    "mmlu": {"question": "Who?", "choices": ["a", "b", "c", "d"], "answer": 1},
    "boolq": {"passage": "It is.", "question": "is it", "label": 1},
    "piqa": {"goal": "Tea", "sol1": "a", "sol2": "b", "label": 1},
    "winogrande": {"sentence": "He saw _ there.", "option1": "a", "option2": "b", "answer": "2"},
}


def documented() -> dict[str, str]:
    """Return the table's row of each format."""
    table = [line.split("|") for line in SECTION.split("---|\n")[1].splitlines() if line.startswith("| `")]
    return {name: cells[-2] for cells in table for name in re.findall(r"`(\w+)`", cells[1])}


def test_every_format_that_reads_a_file_is_in_the_table() -> None:
    shown = documented()
    shown["ollv1_truthfulqa_mc2"] = shown.pop("_mc2")
    assert set(shown) == {name for name in FORMATS if not name.startswith("lm_eval")}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_with_the_keys_of_the_table_is_read(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    (item,) = render(name, Task.model_validate({"format": name, "file": "a.jsonl"}), tmp_path)
    assert len(item.choices) == (4 if name == "mmlu" else 2)
    cell = re.sub(r"as for `arc`", "`text` `label`", documented()[name])
    assert all(re.search(rf"\b{key}\b", cell) for key in row), cell
