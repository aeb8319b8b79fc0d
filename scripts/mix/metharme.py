"""Metharme prompt format: role markers as plain text, with nothing between marker and text or between turns.

Source: the announcement's prompt format; a row is `<|system|>...<|user|>...<|model|>...`. The markers are no
added tokens: to the tokenizer they are ordinary text.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

MARKERS = {"system": "<|system|>", "user": "<|user|>", "model": "<|model|>"}
# Markers are plain text, so a marker inside somebody's words would begin a turn. One space disarms it, stays
# readable, and is what the clean stage does already: there nothing is left to change here.
_LITERAL = re.compile(r"<\|(system|user|model)\|>")


class Segment(NamedTuple):
    """A piece of a training text."""

    text: str
    trained: bool
    """Whether the model wrote it."""


class Rendered(NamedTuple):
    """One conversation as training text, and what had to be changed on the way."""

    segments: list[Segment]
    """Ends in a model turn; concatenated texts are the exact training text."""
    user_turns_cut: int
    """User turns after the last model turn: nothing answers them."""
    markers_disarmed: int
    """Literal role markers found inside texts."""


class FormatError(ValueError):
    """A conversation that can't be put into the prompt format."""


def render(system: str | None, turns: Iterable[Mapping[str, str | None]]) -> Rendered:
    """Put one conversation into Metharme.

    Args:
        system: text of the system turn; the turn is left out where it is blank.
        turns: `{"role": "user" or "model", "text": ...}` in order; any role may begin or come twice in a row.

    Returns:
        Segments `<|system|>...` and `<|user|>...` (not trained), the bare `<|model|>` (not trained) and then the
        model's own text (trained), without white space around it, as generations were in the original rows.

    Raises:
        FormatError: another role, a blank model turn, or no model turn at all.
    """
    said = list(turns)
    last = max((i for i, turn in enumerate(said) if turn["role"] == "model"), default=-1)
    if last < 0:
        raise FormatError("no model turn")
    segments, disarmed = [], 0
    if system is not None and system.strip():
        text, disarmed = _disarm(system)
        segments.append(Segment(MARKERS["system"] + text, False))
    for number, turn in enumerate(said[: last + 1], start=1):
        text, found = _disarm(turn["text"] or "")
        disarmed += found
        if turn["role"] == "user":
            segments.append(Segment(MARKERS["user"] + text, False))
        elif turn["role"] == "model" and text.strip():
            segments += [Segment(MARKERS["model"], False), Segment(text.strip(), True)]
        else:
            found_role = "is a blank model turn" if turn["role"] == "model" else f"has role {turn['role']!r}"
            raise FormatError(f"turn {number} {found_role}")
    return Rendered(segments, len(said) - 1 - last, disarmed)


def _disarm(text: str) -> tuple[str, int]:
    """Return the text with `<|user|>` as `< |user|>`, and how many there were."""
    return _LITERAL.subn(r"< |\1|>", text)
