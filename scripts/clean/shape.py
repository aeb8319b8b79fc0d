"""Shape of an episode: who speaks first and last, no blank turns, bounds on number and length of turns."""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.clean.episode import RawEpisode, Turn
from scripts.clean.text import escape_marks, repair_text
from scripts.recipe.clean import Filters

ALONE = "a model turn alone: no system text or user's turn is before it"
UNANSWERED = "no model turn answers the user"


@dataclass(frozen=True, slots=True)
class Shaped:
    """An episode after shaping."""

    system: str
    turns: tuple[Turn, ...]
    cut: int
    """Raw turns left out: the first blank one with all behind it, a user's words without an answer, or an answer
    without its question at the start."""
    why: str = ""
    """Where no turn is left and none was blank: what there was instead."""


def clean_text(text: str) -> str:
    """Return repaired, stripped text in which nothing can be read as a mark of the prompt format."""
    return escape_marks(repair_text(text).strip())


def shape(raw: RawEpisode, greetings: bool = False) -> Shaped:
    """Cut a conversation to a sound one; may leave no turn at all.

    Neighbouring turns of one role become one. The last turn is a model turn. One that opens stays under a system text
    (a character's greeting, a narrator). Without one it is an answer whose question is lost, as in chats that were
    exported in pieces, and is cut.

    Args:
        greetings: an opening model turn is a greeting even without a system text, as in role-play; a user's turn
            must follow.
    """
    system = clean_text(raw.system)
    turns: list[Turn] = []
    sizes: list[int] = []  # raw turns of each turn
    blank, opening = not raw.turns, False
    for turn in raw.turns:
        said = clean_text(turn.text)
        if not said:
            blank = True
            break
        if not turns and turn.role == "model" and not (system or greetings):
            opening = True
            continue
        if turns and turns[-1].role == turn.role:
            turns[-1] = Turn(turn.role, f"{turns[-1].text}\n\n{said}")
            sizes[-1] += 1
        else:
            turns.append(Turn(turn.role, said))
            sizes.append(1)
    while turns and turns[-1].role == "user":
        del turns[-1], sizes[-1]
    if len(turns) == 1 and turns[0].role == "model" and not system:
        turns, sizes, opening = [], [], True
    why = "" if turns or blank else (ALONE if opening else UNANSWERED)
    return Shaped(system, tuple(turns), len(raw.turns) - sum(sizes), why)


def loop_length(turns: Sequence[Turn]) -> int:
    """Return the length of the loop if a conversation is nothing but one said three times or more, else 0.

    Chats with a model that hangs look so, and exports that follow a parent link in a circle.
    """
    for period in range(1, len(turns) // 3 + 1):
        if len(turns) % period == 0 and all(a == b for a, b in zip(turns, turns[period:], strict=False)):
            return period
    return 0


def misshapen(episode: Shaped, filters: Filters) -> tuple[str, str] | None:
    """Return (reason, detail) if the shape is refused."""
    if not episode.turns:
        return (
            ("unanswered", episode.why) if episode.why else ("blank", "no model turn is left after blank turns are cut")
        )
    answers = sum(turn.role == "model" for turn in episode.turns)
    if answers < filters.min_exchanges:
        return "too_few_exchanges", f"{answers} model turns, needs {filters.min_exchanges}"
    period = loop_length(episode.turns)
    if period:
        return "cyclic", f"the same {period} turns {len(episode.turns) // period} times over"
    longest = max(len(episode.system), *(len(turn.text) for turn in episode.turns))
    if longest > filters.max_turn_chars:
        return "turn_too_long", f"{longest} characters, at most {filters.max_turn_chars}"
    return None
