"""Repair of text, escaping of marks, names for placeholders."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.clean.names import USER_NAMES, fill_names, user_name
from scripts.clean.text import escape_marks, fault_in, repair_mojibake, repair_text
from scripts.clean.wording import Wording

MARKS = ("<s>", "</s>", "<unk>", "<|system|>", "<|user|>", "<|model|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("\ufeffHello", "Hello"),
        ("a\x00b\x07c", "abc"),
        ("one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),
        ("e\u0301tude", "\u00e9tude"),
        ("lone \ud83d here", "lone \ufffd here"),
        ("pair \ud83d\ude00", "pair \U0001f600"),
        ("it\x92s \x93quoted\x94", "it\u2019s \u201cquoted\u201d"),
        ("tab\tand\nline stay", "tab\tand\nline stay"),
    ],
)
def test_repair(broken: str, mended: str) -> None:
    assert repair_text(broken) == mended


@given(st.text(st.characters(codec=None), max_size=80))
def test_repair_is_idempotent_and_always_encodable(text: str) -> None:
    once = repair_text(text)
    once.encode()
    assert repair_text(once) == once == unicodedata.normalize("NFC", once)
    assert "\x00" not in once and "\ufeff" not in once and "\r" not in once


@pytest.mark.parametrize("mark", MARKS)
def test_each_mark_is_escaped_visibly(mark: str) -> None:
    assert escape_marks(f"say {mark} now") == f"say < {mark[1:]} now"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a\0b", "a NUL character"),
        ("lone \ud83d here", "a lone surrogate"),
        ("pair \ud83d\ude00 and lone \ude00", "a lone surrogate"),
        ("pair \ud83d\ude00", ""),
        ("caf\u00e9 \U0001f600", ""),
    ],
)
def test_faults_that_no_repair_mends(text: str, fault: str) -> None:
    assert fault_in(text) == fault


def test_near_marks_stay() -> None:
    kept = "a < b, <span>, <|users|>, <S>, </S>, |user|, <3, <unknown>"
    assert escape_marks(kept) == kept


@given(st.lists(st.sampled_from([*MARKS, "<", ">", "|", "user", "s", "/", "x", "< ", "unk"]), max_size=12))
def test_no_mark_survives_whatever_surrounds_it(parts: list[str]) -> None:
    escaped = escape_marks("".join(parts))
    assert not any(mark in escaped for mark in MARKS)
    assert escape_marks(escaped) == escaped


def test_mojibake() -> None:
    meant = "It\u2019s a caf\u00e9 \u2013 \u201cnice\u201d"
    assert repair_mojibake(meant.encode().decode("cp1252", "replace")) != meant  # 0x9d has no character in Windows-1252
    raw = "".join(
        bytes([b]).decode("cp1252") if b not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else chr(b) for b in meant.encode()
    )
    assert repair_mojibake(raw) == meant
    for sound in (meant, "na\u00efve \u00c2ge", "\u00c3\u0080 la carte \u4e2d"):
        assert repair_mojibake(sound) == sound


def test_names() -> None:
    text = "{{char}} greets {{user}}, [NAME_IN_MESSAGE_REDACTED], [REDACTED], [FIRST_NAME_REDACTED] and <USER>."
    assert fill_names(text, "Mira", "Sam") == "Mira greets Sam, Sam, Sam, Sam and Sam."
    assert fill_names("[NAME_REDACTED] [USERNAME_REDACTED] {{random_user_1}} {{ User }} <BOT>", "M", "S") == "S S S S M"
    assert fill_names(r"{{char}}", r"\g<0>\1", "S") == r"\g<0>\1"
    chosen = {user_name(Wording(seed), "bot") for seed in range(200)}
    assert len(chosen) > 8 and chosen <= set(USER_NAMES)
    assert user_name(Wording(1), "bot") == user_name(Wording(1), "bot")
