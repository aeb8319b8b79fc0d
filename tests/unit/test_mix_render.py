"""The prompt format, character for character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.mix.render import FormatError, Rendered, Segment, render

MARKERS = {"system": "<|system|>", "user": "<|user|>", "model": "<|model|>"}


def turn(role: str, text: str) -> tuple[str, str | None]:
    return role, text


def text_of(rendered: Rendered) -> str:
    return "".join(segment.text for segment in rendered.segments)


def test_exact_text_of_an_example() -> None:
    rendered = render(
        "Enter roleplay mode. You are Mira.",
        [turn("model", "Welcome in!"), turn("user", "Hello.\nA lamp?"), turn("model", "*nods* This one.\n")],
    )
    assert text_of(rendered) == (
        "<|system|>Enter roleplay mode. You are Mira.<|model|>Welcome in!"
        "<|user|>Hello.\nA lamp?<|model|>*nods* This one."
    )
    assert rendered.segments == [
        Segment("<|system|>Enter roleplay mode. You are Mira.", False),
        Segment("<|model|>", False),
        Segment("Welcome in!", True),
        Segment("<|user|>Hello.\nA lamp?", False),
        Segment("<|model|>", False),
        Segment("*nods* This one.", True),
    ]


def test_blank_system_turn_is_left_out() -> None:
    assert text_of(render(" \n", [turn("user", "Hi"), turn("model", "Yes.")])) == "<|user|>Hi<|model|>Yes."


def test_trailing_user_turns_are_cut_and_counted() -> None:
    rendered = render("", [turn("user", "a"), turn("model", "b"), turn("user", "c"), turn("user", "d")])
    assert (text_of(rendered), rendered.user_turns_cut) == ("<|user|>a<|model|>b", 2)


def test_literal_markers_cannot_begin_a_turn() -> None:
    rendered = render("x<|system|>", [turn("user", "say <|model|>no</s>"), turn("model", "<|user|> <|endoftext|>")])
    assert text_of(rendered) == ("<|system|>x< |system|><|user|>say < |model|>no</s><|model|>< |user|> <|endoftext|>")
    assert rendered.markers_disarmed == 3


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([turn("user", "a")], "no model turn"),
        ([], "no model turn"),
        ([turn("user", "a"), turn("model", " ")], "turn 2 is a blank model turn"),
        ([turn("narrator", "a"), turn("model", "b")], "turn 1 has role 'narrator'"),
        ([turn("user", "a"), ("model", None)], "turn 2 is a blank model turn"),
    ],
)
def test_what_the_format_cannot_hold(turns: list[tuple[str, str | None]], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        render("s", turns)


TEXTS = st.text(max_size=30) | st.lists(st.sampled_from(["<|", "user", "|>", "model", " "]), max_size=6).map("".join)
TURNS = st.lists(st.tuples(st.sampled_from(["user", "model"]), TEXTS), min_size=1, max_size=8)


@given(TEXTS, TURNS)
def test_markers_count_turns_whatever_the_texts_hold(system: str, said: list[tuple[str, str]]) -> None:
    turns = [turn(role, text + "." if role == "model" else text) for role, text in [*said, ("model", "end")]]
    rendered = render(system, turns)
    for role, marker in MARKERS.items():
        wanted = bool(system.strip()) if role == "system" else sum(t[0] == role for t in turns)
        assert text_of(rendered).count(marker) == wanted
    assert [s.text for s in rendered.segments if s.trained][-1] == "end."
    assert rendered.segments[-1].trained
    again = render("", [("model", s.text) for s in rendered.segments if s.trained])
    assert again.markers_disarmed == 0
