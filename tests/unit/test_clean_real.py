"""The stage on real files, where they are."""

import os
from pathlib import Path

import pytest

from scripts.clean.adapters.aidungeon import story_turns
from scripts.clean.refusals import refusal_in
from tests.unit.clean_tools import Result, run, said

TEXT = Path(os.environ["ATELIER_REAL_DATA"]) / "text"


def clean_file(folder: Path, adapter: str, name: str) -> Result:
    if not (TEXT / name).is_file():
        pytest.skip(f"real file {TEXT / name} is not here; set ATELIER_REAL_DATA to the folder that holds text/")
    # What adapters lose is asked here; near-duplicates are really there, and have tests of their own.
    return run(folder, {"adapter": adapter}, {name: (TEXT / name).read_bytes()}, near_duplicates=None)


def test_text_adventures(tmp_path: Path) -> None:
    result = clean_file(tmp_path, "aidungeon", "text_adventures.txt")
    raw = (TEXT / "text_adventures.txt").read_text("utf-8")
    assert result.audit["rows_in"] == raw.count("<|startoftext|>") == 600
    assert result.audit["rows_out"] >= 595
    actions = {line[1:].strip() for line in raw.splitlines() if line.startswith(">")}
    for row in result.rows:
        assert row["turns"][-1]["role"] == "model"
        assert all(text in actions for role, text in said(row) if role == "user" and "\n" not in text)
    kept = sum(len(turn["text"].split()) for row in result.rows for turn in row["turns"])
    assert kept > 0.98 * len(raw.split()), "narrative was lost"


def test_refusals_spare_fiction() -> None:
    if not (TEXT / "text_adventures.txt").is_file():
        pytest.skip(f"real file {TEXT / 'text_adventures.txt'} is not here; set ATELIER_REAL_DATA")
    stories = (TEXT / "text_adventures.txt").read_text("utf-8").replace("<|endoftext|>", "").split("<|startoftext|>")
    told = [turn.text for story in stories for turn in story_turns(story) if turn.role == "model"]
    dropped = [text[:80] for text in told if refusal_in(text)]
    assert len(told) > 1500 and len(dropped) <= 0.001 * len(told), dropped


def test_multiround_chat(tmp_path: Path) -> None:
    result = clean_file(tmp_path, "sharegpt", "multiround_chat.json")
    assert result.audit["rows_in"] == 350 and result.audit["rows_out"] > 340


def test_seed_tasks(tmp_path: Path) -> None:
    result = clean_file(tmp_path, "alpaca", "self_instruct_seed_tasks.jsonl")
    assert result.audit["rows_in"] == 175 and result.audit["rows_out"] > 170
