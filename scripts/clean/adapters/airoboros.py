"""Airoboros 1.4.1: instruction and response, one pair a line."""

import re
from collections.abc import Iterator
from pathlib import Path

from scripts.clean.episode import Outcomes, RawEpisode, Role, RowError, Turn
from scripts.clean.rows import Row, json_rows, parse_rows, source_files, table, text
from scripts.clean.wording import Wording
from scripts.recipe.clean import Airoboros

_SPEAKER = re.compile(r"^[ \t]*(USER|ASSISTANT):[ \t]*", re.MULTILINE)
_OWN_NAME = re.compile(r"\bairoboros\b", re.IGNORECASE)


def read(spec: Airoboros, folder: Path, wording: Wording) -> Outcomes:
    """Yield the pairs of all `.jsonl` files; answers in which the model calls itself Airoboros are refused."""
    for path in source_files(folder, ".jsonl", ".json"):
        yield from parse_rows(json_rows(path), _pair)


def _pair(row: Row) -> Iterator[RawEpisode]:
    value = table(row.value)
    instruction, response = text(value, "instruction"), text(value, "response")
    key = f"{instruction}\x1f{response}"
    if _OWN_NAME.search(response):
        raise RowError("the answer names the model Airoboros", "names_itself", key)
    system, turns = split_speakers(instruction)
    # "ASSISTANT:" at the end of an instruction, or before the answer, is left over from its prompt.
    while turns and turns[-1].role == "model" and not turns[-1].text.strip():
        turns.pop()
    first = _SPEAKER.match(response)
    answer = response[first.end() :] if first and first[1] == "ASSISTANT" else response
    yield RawEpisode(row.line, row.file, key, system, (*turns, Turn("model", answer)))


def split_speakers(instruction: str) -> tuple[str, list[Turn]]:
    """Return (system text, turns) of an instruction that may spell out a chat as USER: and ASSISTANT: lines."""
    marks = list(_SPEAKER.finditer(instruction))
    if not marks:
        return "", [Turn("user", instruction)]
    roles: list[Role] = ["user" if mark[1] == "USER" else "model" for mark in marks]
    ends = [*(mark.start() for mark in marks[1:]), len(instruction)]
    turns = [
        Turn(role, instruction[mark.end() : end].strip()) for role, mark, end in zip(roles, marks, ends, strict=True)
    ]
    before = instruction[: marks[0].start()].strip()
    # Text before a lone ASSISTANT: is the question itself, not a system text.
    return ("", [Turn("user", before), *turns]) if before and roles[0] == "model" else (before, turns)
