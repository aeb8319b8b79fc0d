"""Malformed rows by the thousand: each adapter refuses them, with no traceback and no row lost."""

import json
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.artifact.stage import StageError
from scripts.clean.adapters import read_source
from scripts.clean.episode import RawEpisode, Refused
from scripts.clean.wording import Wording
from scripts.recipe.clean import CleanSpec
from tests.unit.clean_tools import run

FUZZ = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)

TEXT = st.text(st.characters(codec=None), max_size=20) | st.sampled_from(["", " ", "<|user|>", "USER: a\nASSISTANT:"])
FIELDS = [
    *("submission_timestamp", "bot_name", "bot_id", "bot_definitions", "categories", "conversation", "message"),
    *("is_human", "conversations", "from", "value", "id", "instruction", "input", "output", "instances", "response"),
    *("context", "category", "name", "data", "action", "average_rating", "mes", "is_user", "user_name"),
    *("character_name", "chat_metadata", "note_prompt", "is_system", "transcript_id", "genres"),
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


@settings(FUZZ, max_examples=15)
@given(st.lists(damaged(GOOD["sharegpt"]), max_size=12))
def test_whole_stage_counts_every_line(lines: list[bytes]) -> None:
    body = json.dumps(GOOD["sharegpt"]).encode() + b"\n" + b"\n".join(lines)
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), {"adapter": "sharegpt"}, {"a.jsonl": body})
    assert result.audit["rows_in"] == sum(bool(line.strip()) for line in body.split(b"\n"))
