"""Guess the instruction ("flipped learning", arXiv:2210.02969): from an answer back to the task behind it.

Reads Dolly rows (instruction, context, response, category) and instruction rows (instruction, input, output).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from scripts.clean.episode import Outcomes, RawEpisode, Turn
from scripts.clean.rows import Row, json_rows, parse_rows, source_files, table, text
from scripts.clean.wording import Wording
from scripts.recipe.clean import GuessInstruction

SYSTEMS = (
    "You are given an answer. %{Work out|Find out|Say} which %{task|instruction|question} it answers.",
    "Read the text of the user and say which instruction it was written for.",
    "For each answer you see, write the instruction that most likely led to it.",
)
ASKS = (
    "Which instruction has this text as its answer?\n\n{answer}",
    "{answer}\n\nWhat was the task that this answers?",
    "Here is an answer; its task was lost. Please write the task again.\n\n{answer}",
    "Answer: {answer}\n\nInstruction:",
)
WITH_CONTEXT = "The task came with this text:"
# Dolly's passages come from Wikipedia with its footnote marks: "in 1887.[3]". An index in code, x[3], stays.
_FOOTNOTE = re.compile(r"(?:(?<=[.,;:!?)\"'\u2019\u201d\]])|(?<=[a-z]{3}))\[\d{1,3}\](?=[\s.,;:\[]|$)")


def read(spec: GuessInstruction, folder: Path, wording: Wording) -> Outcomes:
    """Yield one episode a row of all `.jsonl` and `.json` files; the wording is chosen by keyed hash."""
    for path in source_files(folder, ".jsonl", ".json"):
        yield from parse_rows(json_rows(path), lambda row: _flipped(row, wording))


def _flipped(row: Row, wording: Wording) -> Iterator[RawEpisode]:
    value = table(row.value)
    dolly = "context" in value or "category" in value
    instruction = text(value, "instruction").strip()
    answer = text(value, "response" if "response" in value else "output").strip()
    context = text(value, "context" if dolly else "input", optional=True).strip()
    key = "\x1f".join((instruction, context, answer))
    if dolly:
        answer, context = _FOOTNOTE.sub("", answer), _FOOTNOTE.sub("", context)
    # An empty answer leaves nothing to guess from; the blank turn is refused with the other blank ones.
    asked = wording.choose(ASKS, "guess_instruction_ask", key).replace("{answer}", answer) if answer else ""
    if context and asked:
        asked = f"{asked}\n\n{WITH_CONTEXT}\n\n{context}"
    turns = (Turn("user", asked), Turn("model", instruction))
    yield RawEpisode(row.line, row.file, key, wording.choose(SYSTEMS, "guess_instruction_system", key), turns)
