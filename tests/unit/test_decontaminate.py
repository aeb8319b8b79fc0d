"""Decontamination: planted quotations are all found, innocent rows are not, and the table counts them by task."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.artifact.stage import Job, StageError
from scripts.clean.benchmarks import Passage, read_items
from scripts.clean.build import build
from scripts.clean.decontaminate import TEMPLATE_ITEMS, Decontaminator
from scripts.recipe.clean import CleanSpec, Decontamination
from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from tests.conftest import ROOT

SETTINGS = Decontamination()
LONG = "On a quiet island a keeper counts seven lamps each night before the boats come home again"
SHORT = "Which of the seven lamps did the keeper light first?"  # 10 words


def searcher(*passages: tuple[str, bool], **settings: Any) -> Decontaminator:
    items = [[Passage(text, question)] for text, question in passages]
    return Decontaminator(Decontamination(**settings), {"suite/task": items})


def counts(found: Decontaminator) -> dict[str, Any]:
    return dict(found.table()["tasks"]["suite/task"])


def test_thirteen_words_in_a_row_are_a_quotation_and_twelve_are_not() -> None:
    words = LONG.split()
    found = searcher((LONG, False))
    for first in range(len(words) - 12):
        match = found.search(f"He said: {' '.join(words[first : first + 13]).upper()}!")
        assert match is not None and match.items == (("suite/task", 1),) and match.overlaps == 1
        assert found.search(f"He said: {' '.join(words[first : first + 12])} perhaps.") is None
    assert counts(found) == {
        "items": 1,
        "items_unchecked": 0,
        "items_touched": 1,
        "rows_hit": len(words) - 12,
        "rows_removed": len(words) - 12,
    }


def test_a_short_question_counts_whole_a_short_answer_never() -> None:
    found = searcher((SHORT, True), ("Because the sun rises in the east and sets in the west", False), ("Why?", True))
    assert found.search(f"Tell me. {SHORT} I wonder.") is not None
    assert found.search(SHORT.removesuffix(" first?")) is None
    assert found.search("He knew it, because the sun rises in the east and sets in the west.") is None
    assert found.search("Why? Why? Why?") is None
    assert counts(found)["items_unchecked"] == 2 and counts(found)["items_touched"] == 1
    assert searcher((SHORT, True), short_words=11).search(SHORT) is None


def test_templates_of_a_task_are_no_evidence() -> None:
    template = "these twelve words open every single puzzle of this set the same way today"
    rng = random.Random(4)
    own = [" ".join(f"word{rng.randrange(10**6)}" for _ in range(20)) for _ in range(TEMPLATE_ITEMS + 1)]
    found = searcher(*((f"{template} {text}", True) for text in own))
    assert found.search(template) is None
    assert all(found.search(f"{template} {text}") is not None for text in own)
    few = searcher(*((f"{template} {text}", True) for text in own[:TEMPLATE_ITEMS]))
    match = few.search(template)
    assert match is not None and len(match.items) == TEMPLATE_ITEMS


WORDS = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(items=st.lists(WORDS, min_size=1, max_size=5), row=WORDS, size=st.integers(5, 9))
def test_equals_a_plain_search(items: list[list[str]], row: list[str], size: int) -> None:
    found = searcher(*((" ".join(words), False) for words in items), ngram=size)
    runs = [tuple(row[i : i + size]) for i in range(len(row) - size + 1)]
    own = [{tuple(words[i : i + size]) for i in range(len(words) - size + 1)} for words in items]
    expected = tuple(("suite/task", n) for n, grams in enumerate(own, start=1) if not grams.isdisjoint(runs))
    match = found.search(" ".join(row))
    assert (match.items if match else ()) == expected
    assert match is None or match.overlaps == sum(any(run in grams for grams in own) for run in runs)


def test_every_planted_overlap_is_found_in_a_large_index() -> None:
    rng = random.Random(9)
    passages = [[f"q{rng.randrange(3000)}" for _ in range(rng.randrange(13, 60))] for _ in range(3000)]
    found = searcher(*((" ".join(words), True) for words in passages))
    for _ in range(2000):
        number = rng.randrange(len(passages))
        start = rng.randrange(len(passages[number]) - 12)
        noise = [[f"n{rng.randrange(3000)}" for _ in range(rng.randrange(50))] for _ in range(2)]
        match = found.search(" ".join([*noise[0], *passages[number][start : start + 13], *noise[1]]))
        assert match is not None and ("suite/task", number + 1) in match.items
        assert found.search(" ".join([*noise[0], *passages[number][start : start + 12], *noise[1]])) is None


def test_files_of_every_kind(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "Who?", "choices": ["me", "you"], "scores": {"a lamp": 1}},
        {"input": "b"},
    ]
    expected = [
        [Passage("Who?", True), Passage("me", False), Passage("you", False), Passage("a lamp", False)],
        [Passage("b", True)],
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    (tmp_path / "b.json").write_text(json.dumps(rows))
    (tmp_path / "c.json").write_text(json.dumps({"name": "x", "canary": "y", "keywords": ["z"], "examples": rows}))
    for name in "abc":
        path = next(tmp_path.glob(f"{name}.*"))
        assert [[p for p in item if p.text != "scores"] for item in read_items(path)] == expected, path
    with (tmp_path / "d.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["Who?", "me", "you", "A"], ["When,\nthen?", "now", "B"]])
    assert read_items(tmp_path / "d.csv")[1] == [
        Passage("When,\nthen?", True),
        Passage("now", False),
        Passage("B", False),
    ]
    pq.write_table(pa.Table.from_pylist([{"ctx": "b", "endings": ["c"]}]), tmp_path / "e.parquet")
    assert read_items(tmp_path / "e.parquet") == [[Passage("b", True), Passage("c", False)]]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"a": 1}\n{', "line 2"),
        ("a.json", b'{"a": 1}', "one such list"),
        ("a.json", b"\xff", "utf-8"),
        ("a.parquet", b"PAR1", "not a benchmark file"),
        ("a.txt", b"words", "reads .csv, .json, .jsonl, .parquet"),
    ],
)
def test_bad_files_are_one_clear_error(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StageError, match=says):
        read_items(tmp_path / name)


def clean_with(folder: Path, policy: str, questions: list[str]) -> dict[str, Any]:
    """Clean two rows, the first of which quotes LONG, beside a suite of `questions`."""
    for name in ("out", "src", "quiz"):
        (folder / name).mkdir(parents=True)
    rows = [
        [{"from": "human", "value": "Read it."}, {"from": "gpt", "value": text}] for text in (LONG, "No lamps here.")
    ]
    (folder / "src/a.jsonl").write_text("".join(json.dumps({"conversations": turns}) + "\n" for turns in rows))
    (folder / "quiz/q.jsonl").write_text("".join(json.dumps({"question": q}) + "\n" for q in questions))
    spec = CleanSpec.model_validate(
        {
            "source": "src",
            "read": {"adapter": "sharegpt"},
            "decontamination": {"policy": policy},
            "benchmarks": {"quiz": {"one": "q.jsonl", "two": "q.jsonl"}},
            "seed": 7,
        }
    )
    inputs = {"download/src": folder / "src", "download/quiz": folder / "quiz"}
    build(Job(spec, inputs, folder / "out", folder / "work", 1))
    audit = json.loads((folder / "out/audit.json").read_text())
    rejected = [json.loads(line) for line in (folder / "out/rejected.jsonl").read_text().splitlines()]
    rows_out = pq.read_table(folder / "out/episodes.parquet").num_rows
    return {"audit": audit, "rejected": rejected, "rows": rows_out}


@pytest.mark.parametrize("policy", ["remove", "report"])
def test_the_stage_follows_the_policy(tmp_path: Path, policy: str) -> None:
    result = clean_with(tmp_path, policy, [LONG, "Who?"])
    removed = int(policy == "remove")
    assert result["rows"] == 2 - removed
    assert result["audit"]["rejected"] == ({"contaminated": 1} if removed else {})
    row = {"items": 2, "items_unchecked": 1, "items_touched": 1, "rows_hit": 1, "rows_removed": removed}
    assert result["audit"]["contamination"] == {
        "policy": policy,
        "ngram": 13,
        "short_words": 8,
        "tasks": {"quiz/one": row, "quiz/two": row},
    }
    if removed:
        assert result["rejected"][0]["line"] == 1
        assert result["rejected"][0]["detail"] == "5 overlaps with item 1 of quiz/one and 1 more"


def test_a_missing_benchmark_file_is_one_clear_error(tmp_path: Path) -> None:
    spec = CleanSpec.model_validate(
        {"source": "src", "read": {"adapter": "sharegpt"}, "benchmarks": {"quiz": {"one": "gone.jsonl"}}, "seed": 7}
    )
    inputs = {"download/src": tmp_path, "download/quiz": tmp_path}
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match=r"gone.jsonl: is missing, though task one of suite quiz names it"):
        build(Job(spec, inputs, tmp_path / "out", tmp_path / "work", 1))


def graph(**overrides: Any) -> Graph:
    return Graph(load_recipe([ROOT / "tests/recipes/tiny.yaml"], ROOT, overrides))


def test_the_recipes_suites_are_inputs_of_clean() -> None:
    job = graph().jobs[("clean", "demo-pippa")]
    assert job.inputs == (("download", "demo-pippa"), ("download", "quick"))
    assert job.spec.model_dump()["benchmarks"] == {"quick": {"word_order": "word_order.jsonl"}}
    off = graph(decontamination={"policy": "off"}).jobs[("clean", "demo-pippa")]
    assert off.inputs == (("download", "demo-pippa"),) and off.spec.model_dump()["benchmarks"] == {}


def test_how_a_task_is_scored_does_not_rerun_clean() -> None:
    """Only which files there are counts: limits, notes, models and formats of tasks are no part of clean's spec."""
    task = {"format": "multiple_choice", "file": "word_order.jsonl", "limit": 3, "note": "x"}
    other = graph(suites={"quick": {"tasks": {"word_order": task}}}, benchmark={"batch_size": 2})
    assert other.jobs[("clean", "demo-pippa")] == graph().jobs[("clean", "demo-pippa")]
