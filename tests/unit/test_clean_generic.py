"""Own data without code: ShareGPT, OpenAI messages and Alpaca rows in three kinds of file."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from scripts.artifact.stage import StageError
from scripts.recipe.models import Source
from tests.conftest import ROOT
from tests.unit.clean_tools import jsonl, run, said

GENERIC = {"adapter": "generic"}
SHAREGPT = [
    {"id": "a", "conversations": [{"from": "human", "value": "Name a tree."}, {"from": "gpt", "value": "Oak."}]},
    {
        "system": "Be brief.",
        "conversations": [
            {"from": "system", "value": "You keep bees."},
            {"from": "user", "value": "What now?"},
            {"from": "assistant", "value": "Honey."},
        ],
    },
]
MESSAGES = [
    {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Name"}, {"type": "text", "text": "a bird."}]},
            {"role": "assistant", "content": "A wren."},
        ]
    },
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
]
ALPACA = [
    {"instruction": "Add.", "input": "1 2", "output": "3"},
    {"instruction": "And now?", "input": "", "output": "Four.", "history": [["One?", "Two."]], "system": "Count."},
    {"prompt": "Say hi.", "completion": "Hi."},
]
WANTED = {
    "sharegpt": [
        ("", [("user", "Name a tree."), ("model", "Oak.")]),
        ("Be brief.\n\nYou keep bees.", [("user", "What now?"), ("model", "Honey.")]),
    ],
    "messages": [
        ("", [("user", "Hi"), ("model", "Hello")]),
        ("Be brief.", [("user", "Name\na bird."), ("model", "A wren.")]),
    ],
    "alpaca": [
        ("", [("user", "Add.\n\n1 2"), ("model", "3")]),
        ("", [("user", "Say hi."), ("model", "Hi.")]),
        ("Count.", [("user", "One?"), ("model", "Two."), ("user", "And now?"), ("model", "Four.")]),
    ],
}
ROWS: dict[str, list[dict[str, Any]]] = {"sharegpt": SHAREGPT, "messages": MESSAGES, "alpaca": ALPACA}


def parquet(path: Path, rows: list[dict[str, Any]]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]), path)
    return path.read_bytes()


@pytest.mark.parametrize("form", [*ROWS])
@pytest.mark.parametrize("named", [True, False], ids=["named", "detected"])
def test_each_form_in_each_kind_of_file(tmp_path: Path, form: str, named: bool) -> None:
    rows, read = ROWS[form], {**GENERIC, **({"form": form} if named else {})}
    plain = [row for row in rows if form != "messages" or isinstance(row["messages"][1]["content"], str)]
    bodies: dict[str, str | bytes] = {"a.jsonl": jsonl(*rows), "a.json": json.dumps(rows, indent=1)}
    for name, body in bodies.items():
        found = run(tmp_path / name, read, {name: body})
        assert sorted((r["system"], said(r)) for r in found.rows) == WANTED[form]
        assert not found.rejected
    # Parquet has one type for a column, so texts and lists of parts can't stand in one.
    wanted = run(tmp_path / "plain", read, {"a.jsonl": jsonl(*plain)}).rows
    found = run(tmp_path / "parquet", read, {"a.parquet": parquet(tmp_path / "p", plain)})
    assert [(r["id"], r["system"], said(r)) for r in found.rows] == [(r["id"], r["system"], said(r)) for r in wanted]


def test_own_names_of_columns_and_speakers(tmp_path: Path) -> None:
    rows = [
        {"talk": [{"who": "Visitor", "line": "Hi"}, {"who": "Innkeeper", "line": "Welcome."}], "nr": 1, "scene": "Inn"}
    ]
    columns = {"turns": "talk", "role": "who", "text": "line", "system": "scene", "id": "nr"}
    read = {**GENERIC, "columns": columns, "roles": {"visitor": "user", "Innkeeper": "model"}}
    (row,) = run(tmp_path / "a", read, {"a.jsonl": jsonl(*rows)}).rows
    assert (row["system"], said(row)) == ("Inn", [("user", "Hi"), ("model", "Welcome.")])
    read = {**GENERIC, "form": "alpaca", "columns": {"instruction": "q", "output": "a"}}
    (row,) = run(tmp_path / "b", read, {"a.jsonl": jsonl({"q": "Why?", "a": "So.", "instruction": "unused"})}).rows
    assert said(row) == [("user", "Why?"), ("model", "So.")]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "x"}, "found 'text'; needs conversations or messages"),
        ({"conversations": "x"}, "conversations: found a text, needs a list"),
        ({"conversations": []}, "conversations: found an empty list"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]: speaker 'tool'; allowed: assistant"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content: found nothing"),
        ({"messages": [{"content": "x"}]}, "messages[0].from or role: found nothing"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "content[0].type: found 'image'"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "before all others"),
        ({"instruction": "a", "output": 3}, "output: found a number"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "history[0]: needs [question, answer]"),
        ({"instruction": "a\0", "output": "b"}, "instruction: holds a NUL character"),
        ([1], "row: found a list"),
    ],
)
def test_malformed(tmp_path: Path, row: object, words: str) -> None:
    result = run(tmp_path, GENERIC, {"a.jsonl": jsonl(ALPACA[0], row)})
    assert len(result.rows) == 1 and words in result.rejected[0]["detail"] and result.rejected[0]["line"] == 2


def test_a_damaged_parquet_file_and_a_bad_row_in_it(tmp_path: Path) -> None:
    body = parquet(tmp_path / "p", ALPACA)
    for index, bad in enumerate((body[: len(body) // 2], b"PAR1", b"", body[:4] + b"\0" * 40 + body[-4:])):
        with pytest.raises(StageError, match="not a readable parquet file|holds no row"):
            run(tmp_path / f"bad{index}", GENERIC, {"a.parquet": bad})
    broken = pa.array([b"Q\xff", b"Q"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"instruction": broken, "output": ["a", "b"], "n": [1, 2]}), tmp_path / "q")
    result = run(tmp_path / "x", GENERIC, {"a.parquet": (tmp_path / "q").read_bytes()})
    assert [(r["line"], r["reason"]) for r in result.rejected] == [(1, "encoding")] and len(result.rows) == 1


def test_the_ten_lines_of_the_documentation(tmp_path: Path) -> None:
    """The snippet of docs/data.md is a valid source and reads the row shown above it."""
    page = (ROOT / "docs" / "data.md").read_text()
    start = page.index("```yaml\n# config/sources/mine.yaml") + len("```yaml\n")
    snippet = page[start : page.index("```", start)]
    assert len(snippet.strip().splitlines()) <= 10
    source = Source.model_validate(yaml.safe_load(textwrap.dedent(snippet)))
    row = json.loads(page[page.index('{"conversations"') :].split("\n", 1)[0])
    read = source.read.model_dump()
    assert len(run(tmp_path, read, {"mine.jsonl": jsonl(row)}).rows) == 1
