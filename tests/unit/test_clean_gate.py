"""The minors gate and the adult label, with neutral stand-in words."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from scripts.clean.lexicon import folded_words, load_lexicon
from scripts.recipe.clean import Filters
from tests.unit.clean_tools import NEUTRAL, jsonl, run


def gated(text: str) -> bool:
    return NEUTRAL.gated(text, folded_words(text))


@pytest.mark.parametrize(
    "text",
    [
        "a zorble and a quimple",
        "Zorble.\n\nmuch later: QUIMPLE!",
        "z\u00f6rble quimple",
        "zor\u200bble and quim\u00adple",
        "\uff5a\uff4f\uff52\uff42\uff4c\uff45 quimple",
        "zorble\u2019s quimple\u2019s",
        "<b>zorble</b>quimple<br/>",
        "zorble, 16 years old",
        "zorble, a sixteen-year-old",
        "zorble (17yo)",
        "zorble. Age: 15",
        'age("14") zorble',
        "she is 16 and zorble",
        "I'm seventeen. zorble",
        "I\u2019m 12, zorble",
        "they turned 13; zorble",
        "16/f zorble",
        "in 9th grade, zorble",
        "zorble, aged twelve",
    ],
)
def test_gate_catches(text: str) -> None:
    assert gated(text)


@pytest.mark.parametrize(
    "text",
    [
        "quimple at school, 12 years old",
        "zorble alone",
        "zorblement and quimples",
        "zorble, 18 years old",
        "zorble, she is 21",
        "zorble, 116 years old",
        "zorble costs $15",
        "zorble, it took 10 years",
        "zorble, I'm 5 minutes late",
        "zorble, I'm sixty",
        "zorble, often old",
        "zorble, version 1.5",
        "aged 45, zorble",
    ],
)
def test_gate_lets_pass(text: str) -> None:
    assert not gated(text)


def chat(*texts: str) -> dict[str, object]:
    turns = [{"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(texts)]
    return {"conversations": turns}


def test_gated_row_leaves_only_id_and_reason(tmp_path: Path) -> None:
    secret = "the zorble secret"
    result = run(
        tmp_path,
        {"adapter": "sharegpt"},
        {"a.jsonl": jsonl(chat("Hi", secret, "quimple", "ok"), chat("Hi", "Yo"))},
        NEUTRAL,
    )
    assert [set(row) for row in result.rejected] == [{"id", "reason"}]
    assert result.reasons == ["minors_gate"]
    for path in result.out.iterdir():
        assert b"secret" not in path.read_bytes()


def test_gate_reads_what_other_filters_cut_or_refuse(tmp_path: Path) -> None:
    rows = (
        chat("zorble", "fine", "", "quimple"),  # behind a blank turn
        chat("zorble", "x" * 50, "quimple", "y"),  # too long
        chat("zorble quimple", ""),  # no answer
        {"conversations": [{"from": "zorble", "value": "quimple"}]},  # malformed
        chat("zorble quimple", "I'm sorry, but I can't help with that request."),
        chat("zorble quimple grobnak", "adult too"),
        chat("Hello", "Good day"),
    )
    result = run(tmp_path, {"adapter": "sharegpt"}, {"a.jsonl": jsonl(*rows)}, NEUTRAL, max_turn_chars=40)
    assert result.reasons == ["minors_gate"] * 6
    assert result.samples["rejected"] == {}
    assert b"orble" not in b"".join(p.read_bytes() for p in result.out.iterdir())


def test_gate_reads_unparsable_lines(tmp_path: Path) -> None:
    text = '{"conversations": "first\\nzorble\\nquimple\n' + jsonl(chat("Hello", "Good day"))
    assert run(tmp_path, {"adapter": "sharegpt"}, {"a.jsonl": text}, NEUTRAL).reasons == ["minors_gate"]


def test_gate_reads_definitions_and_tags(tmp_path: Path) -> None:
    base = {"submission_timestamp": 1, "bot_name": "Mira", "conversation": [{"message": "zorble", "is_human": False}]}
    rows = [
        {**base, "bot_definitions": "{{char}}: quimple\nEND_OF_DIALOG\n"},
        {**base, "categories": ["Quimple"]},
        {**base, "bot_greeting": "Age: 15"},
    ]
    result = run(tmp_path, {"adapter": "pippa"}, {"a.jsonl": jsonl(*rows)}, NEUTRAL, adult="label")
    assert result.reasons == ["minors_gate"] * 3


def test_nothing_switches_the_gate_off(tmp_path: Path) -> None:
    assert not [name for name in Filters.model_fields if "minor" in name or "gate" in name]
    with pytest.raises(ValidationError):
        Filters.model_validate({"minors_gate": False})
    loose = {
        "adult": "label",
        "refusals": "keep",
        "exact_duplicates": False,
        "prefix_duplicates": False,
        "min_exchanges": 0,
    }
    result = run(tmp_path, {"adapter": "sharegpt"}, {"a.jsonl": jsonl(chat("zorble", "quimple"))}, NEUTRAL, **loose)
    assert result.reasons == ["minors_gate"] and result.rows == []


def test_adult_label(tmp_path: Path) -> None:
    rows = jsonl(chat("grobnak", "a"), chat("fnarp fnarp", "b"), chat("fnarp", "dwoozle"))
    excluded = run(tmp_path / "x", {"adapter": "sharegpt"}, {"a.jsonl": rows}, NEUTRAL)
    assert excluded.audit["rejected"] == {"adult": 2} and [r["label"] for r in excluded.rows] == ["general"]
    assert "adult" not in excluded.samples["rejected"]
    labelled = run(tmp_path / "y", {"adapter": "sharegpt"}, {"a.jsonl": rows}, NEUTRAL, adult="label")
    assert sorted(r["label"] for r in labelled.rows) == ["adult", "adult", "general"]
    assert len(labelled.samples["kept"]) == 1


def test_real_lists_have_no_overlap_by_mistake() -> None:
    lists = load_lexicon()
    assert lists.sexual & lists.minor == {
        b"incest",
        b"incestuous",
        b"loli",
        b"lolicon",
        b"pedophile",
        b"pedophilia",
        b"shota",
        b"shotacon",
    }
    assert min(len(lists.sexual), len(lists.minor), len(lists.adult_strong), len(lists.adult_weak)) > 15
