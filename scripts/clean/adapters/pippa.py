"""PIPPA: user-submitted Character.AI logs, one chat a line.

Fields: submission_timestamp (Unix ms), categories, bot_id, bot_name, bot_greeting, bot_definitions,
bot_description, conversation: [{message, is_human}]. Source: data reference, sections 1.1, 1.4 and 2.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from scripts.clean.episode import Outcomes, RawEpisode, RowError, Turn
from scripts.clean.names import fill_names, user_name
from scripts.clean.rows import Row, items, json_rows, parse_rows, source_files, table, text
from scripts.clean.wording import Wording
from scripts.recipe.clean import Pippa

HOLD_BACK = "Should the talk become too intimate, {{char}} is reluctant and leads away from it."
"""In the manner of the original's persona prompt (`cai_prompt`), without a word that gate or label look for."""
_END = "END_OF_DIALOG"
_CUT_NOTICE = re.compile(r"^\s*START:\s*text_remaining.*$", re.MULTILINE)


def read(spec: Pippa, folder: Path, wording: Wording) -> Outcomes:
    """Yield the chats of all `.jsonl` files; those submitted at or after `submitted_before` are refused."""
    for path in source_files(folder, ".jsonl", ".json"):
        yield from parse_rows(json_rows(path), lambda row: _chat(row, spec, wording))


def _chat(row: Row, spec: Pippa, wording: Wording) -> Iterator[RawEpisode]:
    value = table(row.value)
    name = text(value, "bot_name").strip() or "the character"
    raw = [_message(item, index) for index, item in enumerate(items(value, "conversation"))]
    bot = text(value, "bot_id", optional=True)
    key = "\x1f".join((bot, *(f"{role}:{message}" for role, message in raw)))
    when = value.get("submission_timestamp")
    if isinstance(when, bool) or not isinstance(when, int | float):
        raise RowError(f"submission_timestamp: found {when!r:.60}, needs Unix milliseconds", key=key)
    if not when < spec.submitted_before:
        raise RowError(f"submitted at {when:.0f} ms, not before {spec.submitted_before}", "after_cutoff", key)
    description = text(value, "bot_description", optional=True)
    definitions = text(value, "bot_definitions", optional=True)
    # Chosen by what all uploads of a growing chat share: a prefix must stay a prefix.
    user = user_name(wording, bot, name, raw[0].text if raw else "")
    system = _persona(name, description, persona_text(definitions, name))
    if wording.compat.cai_prompt:
        system = f"{system}\n{HOLD_BACK}"
    categories = value.get("categories")
    tags = " ".join(tag for tag in categories if isinstance(tag, str)) if isinstance(categories, list) else ""
    context = "\n".join((tags, description, definitions, text(value, "bot_greeting", optional=True)))
    turns = tuple(Turn(role, fill_names(message, name, user)) for role, message in raw)
    yield RawEpisode(row.line, row.file, key, fill_names(system, name, user), turns, context)


def _message(item: object, index: int) -> Turn:
    message = table(item, f"conversation[{index}]")
    human = message.get("is_human")
    if not isinstance(human, bool):
        raise RowError(f"conversation[{index}].is_human: found {human!r:.60}, needs true or false")
    return Turn("user" if human else "model", text(message, "message"))


def _persona(name: str, description: str, persona: str) -> str:
    facts = [part.strip() for part in (description, persona) if part.strip()]
    return "\n".join([f"You are {name} and speak as this character in a chat.", *dict.fromkeys(facts)])


def persona_text(definitions: str, name: str) -> str:
    """Return the persona of a Character.AI definition without its example chats.

    An example chat runs from the first line that {{char}}, {{user}} or the bot speaks to END_OF_DIALOG. Behind the
    last END_OF_DIALOG only such lines go: without an end mark the rest may be persona ("Likes: tea").
    """
    speaker = re.compile(rf"^\s*(?:\{{\{{[^{{}}]{{1,40}}\}}\}}|{re.escape(name)})\s*:")
    kept: list[str] = []
    *closed, last = _CUT_NOTICE.sub("", definitions).split(_END)
    for block in closed:
        kept += itertools.takewhile(lambda line: not speaker.match(line), block.split("\n"))
    kept += (line for line in last.split("\n") if not speaker.match(line))
    return "\n".join(line for line in kept if line.strip())
