"""System prompts: variants, choice and what is filled in from the model's turns."""

from collections import Counter

import pytest
from pydantic import ValidationError

from scripts.mix.choose import take
from scripts.mix.system_prompts import expanded, length_text, style_text, system_text
from scripts.recipe.mix import Share, alternatives

PLAIN = "Tell a story."
VARIED = "%{Enter|Begin} %{a game|a tale|roleplay} %{now|}."


def test_all_variants_once_each() -> None:
    assert (alternatives(PLAIN), alternatives(VARIED)) == (1, 12)
    found = [expanded(VARIED, number) for number in range(12)]
    assert found[0] == "Enter a game now." and found[1] == "Enter a game ." and found[-1] == "Begin roleplay ."
    assert len(set(found)) == 12
    assert expanded(PLAIN, 0) == PLAIN


def test_template_first_then_variant() -> None:
    """Two templates share the rows evenly although one has twelve variants; the same row gets the same text."""
    texts = [system_text(7, "s", f"{n}", [PLAIN, VARIED], "", []) for n in range(2000)]
    counts = Counter(texts)
    assert 900 < counts[PLAIN] < 1100  # 1,000 expected, standard deviation 22; 154 if variants were drawn evenly
    assert len(counts) == 13 and all(50 < counts[t] < 120 for t in counts if t != PLAIN)  # 83 each
    assert texts == [system_text(7, "s", f"{n}", [PLAIN, VARIED], "", []) for n in range(2000)]
    assert texts != [system_text(8, "s", f"{n}", [PLAIN, VARIED], "", []) for n in range(2000)]


def test_slots_are_filled_from_the_conversation() -> None:
    template = "Play along. {{system}} {{response_length_str}} {{response_style_str}}"
    turns = [("user", "word " * 500), ("model", '*nods* "Come in."'), ("model", '*waves* "Sit."')]
    assert system_text(1, "s", "x", [template], "You are {{response_style_str}}.", turns) == (
        "Play along. You are {{response_style_str}}. Answer in one short sentence. "
        "Put actions between asterisks and speech in quotation marks."
    )
    assert system_text(1, "s", "x", ["{{system}}"], None, turns) == ""


def test_length_and_style_follow_the_replies() -> None:
    texts = [length_text(["word " * count]) for count in (15, 16, 100, 101, 450, 451)]
    assert texts[0] == "Answer in one short sentence." and len(set(texts)) == 6
    assert length_text(["word " * 5, "word " * 400]) == length_text(["word " * 202])
    styles = [style_text(replies) for replies in (["It rained."], ["*rains*"], ["\u201cRain\u201d"], ["*r*", '"s"'])]
    assert len(set(styles)) == 4
    assert style_text(["*rains*", "a", "b"]) == "Write plain prose."


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{char}} speaks", "unknown slot {{char}}; allowed: system, response_length_str"),
        ("%{a|b", "%{ without its }"),
        ("%{a|%{b}}", "%{ without its }"),
        ("%{1|2|3|4}" * 5, "1024 variants, at most 256"),
        ("", "at least 1 character"),
    ],
)
def test_bad_templates_are_named(template: str, message: str) -> None:
    with pytest.raises(ValidationError) as found:
        Share(system_prompts=[template])
    assert message in str(found.value)


def test_cap_in_characters_is_nested_and_never_passed() -> None:
    ids = [f"{n}" for n in range(200)]
    chars = {name: 10 + 7 * int(name) % 90 for name in ids}
    last: set[str] = set()
    for cap in (1, 50, 500, 5000, 10**6):
        found = {row.episode for row in take(1, "s", reversed(ids), Share(max_chars=cap), chars)}
        assert last <= found and sum(chars[name] for name in found) <= cap
        assert found == {row.episode for row in take(1, "s", ids, Share(max_chars=cap), chars)}
        last = found
    assert last == set(ids)
    both = {row.episode for row in take(1, "s", ids, Share(max_chars=5000, max_rows=20), chars)}
    assert both == {row.episode for row in take(1, "s", ids, Share(max_rows=20), chars)}
