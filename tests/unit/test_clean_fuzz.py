"""Malformed rows by the thousand: each adapter refuses them, with no traceback and no row lost."""

import json
import os
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.artifact.stage import StageError
from scripts.clean.adapters import read_source
from scripts.clean.episode import RawEpisode, Refused
from scripts.clean.wording import Wording
from scripts.recipe.clean import CleanSpec
from tests.unit.clean_tools import run

SUPPRESSED = [HealthCheck.too_slow, HealthCheck.data_too_large]
FUZZ = settings(max_examples=30, deadline=None, suppress_health_check=SUPPRESSED, derandomize=True)

TEXT = st.text(st.characters(codec=None), max_size=20) | st.sampled_from(["", " ", "<|user|>", "USER: a\nASSISTANT:"])
FIELDS = [
    *("submission_timestamp", "bot_name", "bot_id", "bot_definitions", "categories", "conversation", "message"),
    *("is_human", "conversations", "from", "value", "id", "instruction", "input", "output", "instances", "response"),
    *("context", "category", "name", "data", "action", "average_rating", "mes", "is_user", "user_name"),
    *("character_name", "chat_metadata", "note_prompt", "is_system", "transcript_id", "genres"),
    *("messages", "role", "content", "swipes", "swipe_id", "extra", "history", "system", "type", "text"),
]
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(["human", "gpt", "system", "%"])
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5)
)
GOOD: dict[str, dict[str, Any]] = {
    "pippa": {"submission_timestamp": 1, "bot_name": "M", "conversation": [{"message": "a", "is_human": False}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    "airoboros": {"instruction": "a", "response": "b"},
    "alpaca": {"instruction": "a", "instances": [{"input": "", "output": "b"}]},
    "guess_instruction": {"instruction": "a", "context": "", "response": "b", "category": "c"},
    "floyd": {"name": "n", "data": [{"action": "a", "response": "b"}]},
    "sillytavern": {"name": "You", "is_user": True, "mes": "a"},
    "generic": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
}


PARTS = ["<|startoftext|>", "<|endoftext|>", "\n", "> go", "word", " ", "\r\n"]


def outcomes(adapter: str, name: str, body: bytes) -> list[RawEpisode | Refused]:
    """Return all that an adapter says about one file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(body)
        spec = CleanSpec.model_validate({"source": "s", "read": {"adapter": adapter}, "seed": 1})
        return list(read_source(spec.read, Path(folder), Wording(1)))


@st.composite
def damaged(draw: Callable[..., Any], good: dict[str, Any]) -> bytes:
    """One line: a good row with values replaced or keys taken away, a random value, or no JSON at all."""
    way = draw(st.integers(0, 3))
    if way == 0:
        raw: bytes = draw(st.binary(max_size=30))
        return raw.replace(b"\n", b" ").replace(b"\r", b" ")
    row: Any = draw(VALUE)
    if way > 1:
        row = dict(good)
        for key in draw(st.lists(st.sampled_from([*good]), min_size=1, max_size=2)):
            row[key] = draw(VALUE)
            if draw(st.booleans()):
                del row[key]
    text = json.dumps(row)
    return (text[: draw(st.integers(0, len(text)))] if way == 3 else text).encode()


@pytest.mark.parametrize("adapter", sorted(GOOD))
def test_json_adapters(adapter: str) -> None:
    @FUZZ
    @given(st.lists(damaged(GOOD[adapter]), max_size=6))
    def check(lines: list[bytes]) -> None:
        body = json.dumps(GOOD[adapter]).encode() + b"\n" + b"\n".join(lines)
        found = outcomes(adapter, "a.jsonl", body)
        filled = {i for i, line in enumerate(body.split(b"\n"), start=1) if line.strip()}
        # A chat of SillyTavern is several lines: only its first line and the refused ones are told.
        told = {outcome.line for outcome in found}
        assert told <= filled and (told == filled or adapter == "sillytavern")
        assert any(isinstance(outcome, RawEpisode) for outcome in found)
        for outcome in found:
            if isinstance(outcome, Refused):
                assert outcome.reason and outcome.detail
            (outcome.text if isinstance(outcome, Refused) else outcome.system).encode()

    check()


@FUZZ
@given(st.binary(max_size=200) | st.text(alphabet='[]{},:"x1 \\', max_size=60).map(str.encode))
def test_json_files_of_anything(body: bytes) -> None:
    for name in ("a.json", "a.jsonl"):
        try:
            outcomes("sharegpt", name, body)
            outcomes("floyd", name, body)
        except StageError as error:
            assert name in str(error)


@FUZZ
@given(
    st.lists(
        st.sampled_from(["<|startoftext|>", "<|endoftext|>", "\n", "> go", "word", " ", "\r\n"]) | TEXT, max_size=20
    )
)
def test_aidungeon(parts: list[str]) -> None:
    body = ("<|startoftext|>a<|endoftext|>" + "".join(parts)).encode("utf-8", "surrogatepass")
    found = outcomes("aidungeon", "a.txt", body)
    words = sum(part == "word" for part in parts)
    seen = [
        outcome.text if isinstance(outcome, Refused) else "\n".join(turn.text for turn in outcome.turns)
        for outcome in found
    ]
    assert "\n".join(seen).count("word") >= words
    assert isinstance(found[0], RawEpisode)


CELL = st.text(st.sampled_from([*string.ascii_letters, *'",\n\r<>&; \x00\u00e9']), max_size=12)


@FUZZ
@given(st.lists(st.lists(CELL, max_size=5).map(lambda cells: ",".join(cells)), max_size=8), st.binary(max_size=5))
def test_csv_adapters(lines: list[str], tail: bytes) -> None:
    header = "thread_title,message_username,message,story_title,story\nt,u,m,s,x\n"
    body = (header + "\n".join(lines)).encode() + tail
    for adapter in ("forum", "stories"):
        found = outcomes(adapter, "a.csv", body)
        assert found and all(isinstance(outcome, RawEpisode) or outcome.detail for outcome in found)


@FUZZ
@given(st.binary(max_size=300))
def test_parquet_of_anything(body: bytes) -> None:
    with pytest.raises(StageError, match="not a readable parquet file"):
        outcomes("openorca", "a.parquet", body)


# --- the whole stage, every adapter -------------------------------------------

MALFORMED_ROWS = int(os.environ.get("ATELIER_FUZZ_ROWS", 1700))
"""Refused of each adapter in the slow leg; `make fuzz` asks for 20,000 of each."""


def json_body(adapter: str) -> st.SearchStrategy[tuple[str, bytes]]:
    """Return files of one good row and some damaged ones."""
    good = json.dumps(GOOD[adapter]).encode() + b"\n"
    if adapter == "sillytavern":
        good += json.dumps({"name": "Tom", "is_user": False, "mes": "b"}).encode() + b"\n"
    rows = st.lists(damaged(GOOD[adapter]), min_size=30, max_size=60)
    return rows.map(lambda lines: ("a.jsonl", good + b"\n".join(lines)))


def csv_body(adapter: str) -> st.SearchStrategy[tuple[str, bytes]]:
    """Return files with the right header, one good row, and rows of the wrong width or of bad bytes."""
    header = {"forum": b"thread_title,message_username,message\nt,u,m\n", "stories": b"story_title,story\nt,s\n"}
    cell = st.sampled_from([b"", b"x", b"\xff", b"\0", b"a b", b"&amp;", b"[quote]", b"((", b"<p>", b'"q"', b"\r"])
    row = st.lists(cell, max_size=5).map(b",".join)
    return st.lists(row, min_size=40, max_size=90).map(lambda rows: ("a.csv", header[adapter] + b"\n".join(rows)))


def text_body() -> st.SearchStrategy[tuple[str, bytes]]:
    """Return story files with marks at any place."""
    part = st.sampled_from([*(p.encode() for p in PARTS), b"\xff", b"\0", b"<|startoftext|>", b"<|startoftext|>w"])
    good = b"<|startoftext|>a\n> go\nb<|endoftext|>"
    return st.lists(part, min_size=90, max_size=160).map(lambda parts: ("a.txt", good + b"".join(parts)))


def parquet_body() -> st.SearchStrategy[tuple[str, bytes]]:
    """Return OpenOrca tables with nulls, bytes that are no text, NULs and surrogates as bytes."""
    cell = st.none() | st.sampled_from([b"", b"\xff", b"\0", b"\xed\xa0\xbd", b"text"])
    row = st.tuples(cell, cell, cell)

    def table(rows: list[tuple[bytes | None, ...]]) -> tuple[str, bytes]:
        names = ("system_prompt", "question", "response")
        cells = zip(*[(b"", b"q", b"a"), *rows], strict=True)
        columns = {n: pa.array(list(c), pa.binary()).view(pa.string()) for n, c in zip(names, cells, strict=True)}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink)
        return "a.parquet", sink.getvalue().to_pybytes()

    return st.lists(row, min_size=40, max_size=90).map(table)


BODIES = {
    **{adapter: json_body(adapter) for adapter in GOOD},
    **{adapter: csv_body(adapter) for adapter in ("forum", "stories")},
    "aidungeon": text_body(),
    "openorca": parquet_body(),
}


def refused_by_stage(adapter: str, examples: int) -> int:
    """Clean many files; `run` checks that rows in = rows out + refused each time. Return how many were refused."""
    refused = 0

    @settings(FUZZ, max_examples=examples)
    @given(BODIES[adapter])
    def check(file: tuple[str, bytes]) -> None:
        nonlocal refused
        name, body = file
        with tempfile.TemporaryDirectory() as folder:
            result = run(Path(folder), {"adapter": adapter}, {name: body})
        for row in result.rejected:
            assert row["reason"] == "minors_gate" or (row["line"] >= 1 and row["detail"])
        if name.endswith((".jsonl", ".parquet")) and adapter != "sillytavern":
            filled = sum(bool(line.strip()) for line in body.split(b"\n")) if name.endswith("l") else None
            assert filled in (None, result.audit["rows_in"])
        refused += len(result.rejected)

    check()
    return refused


@pytest.mark.parametrize("adapter", sorted(BODIES))
def test_whole_stage_quickly(adapter: str) -> None:
    assert refused_by_stage(adapter, 6) > 0


# 23 to 60 rows of a file are refused; enough files for 1,700 rows of each adapter.
EXAMPLES = {"floyd": 90, "sillytavern": 90, "aidungeon": 75, "forum": 50, "openorca": 40, "stories": 50}


@pytest.mark.slow
@pytest.mark.parametrize("adapter", sorted(BODIES))
def test_whole_stage_at_length(adapter: str) -> None:
    """Every adapter refuses its malformed rows, 20,000 over all of them, or 20,000 each (`make fuzz`)."""
    examples = EXAMPLES.get(adapter, 75) * MALFORMED_ROWS // 1700
    assert refused_by_stage(adapter, examples) >= MALFORMED_ROWS
