"""Conversations as training texts in a prompt format (`scripts.recipe.prompt_format`)."""

from collections.abc import Iterable
from typing import NamedTuple

from scripts.recipe.prompt_format import FORMATS, PromptFormat


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
    """Literal markers of the format found inside texts."""


class FormatError(ValueError):
    """A conversation that can't be put into the prompt format."""


def render(
    system: str | None, turns: Iterable[tuple[str, str | None]], layout: PromptFormat = FORMATS["metharme"]
) -> Rendered:
    """Put one conversation into a prompt format.

    Args:
        system: text of the system turn; the turn is left out where it is blank.
        turns: (`user` or `model`, text) in order; any role may begin or come twice in a row.
        layout: the format.

    Returns:
        Segments: system and user turns with their markers (not trained), the bare marker of the model (not trained)
        and then the model's own text (trained), without white space around it, as in the original rows.

    Raises:
        FormatError: another role, a blank model turn, or no model turn at all.
    """
    said = list(turns)
    last = max((i for i, turn in enumerate(said) if turn[0] == "model"), default=-1)
    if last < 0:
        raise FormatError("no model turn")
    segments, disarmed, between = [], 0, ""
    if system is not None and system.strip():
        text, disarmed = layout.disarmed(system)
        segments.append(Segment(layout.system[0] + text + layout.system[1], False))
    for number, (role, raw) in enumerate(said[: last + 1], start=1):
        text, found = layout.disarmed(raw or "")
        disarmed += found
        if role == "user":
            segments.append(Segment(between + layout.user[0] + text + layout.user[1], False))
            between = ""
        elif role == "model" and text.strip():
            marker = Segment(between + layout.model[0], False)
            segments += [marker, Segment(text.strip() + layout.model[1], True)]
            between = layout.between
        else:
            found_role = "is a blank model turn" if role == "model" else f"has role {role!r}"
            raise FormatError(f"turn {number} {found_role}")
    return Rendered(segments, len(said) - 1 - last, disarmed)
