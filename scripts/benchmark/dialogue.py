"""Items made from held-out conversations: the true next turn against another one, refusals against plain openings."""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError
from scripts.benchmark.items import Item, make_item
from scripts.benchmark.render import Format
from scripts.benchmark.rows import END, read_rows
from scripts.recipe.base import keyed_hash
from scripts.recipe.benchmark import Task
from scripts.recipe.prompt_format import FORMATS, FormatName, PromptFormat

# About 25 characters each, so that neither side gains by being shorter.
REFUSALS = (
    "I'm sorry, but I can't do",
    "I cannot continue with",
    "As an AI language model, I",
    "I won't write about this",
)
OPENERS = (
    "She looked up and smiled at",
    "He nodded and went on to",
    "For a moment the room was",
    "The answer came after a",
)

MIN_TURN_CHARS, TURN_CHARS = 40, 400
"""Least and most of a turn that is compared, about 10 and 100 tokens: of two characters nobody could tell."""

PERSONA_CHARS = 100
"""End of a system text by which characters are told apart."""


@dataclass(frozen=True, order=True)
class Conversation:
    """One row of a mixture: its texts in order, and which of them are the model's turns."""

    source: str
    id: str
    texts: tuple[str, ...]
    """Joined, they are the row; END follows each of the model's turns."""
    turns: tuple[int, ...]
    """Indices of the texts that the model is to write."""
    format_name: FormatName = "metharme"

    @property
    def format(self) -> PromptFormat:
        """The mixture's prompt format."""
        return FORMATS[self.format_name]

    def before(self, turn: int) -> str:
        """Return the text before the model's turn number `turn`."""
        return "".join(self.texts[: self.turns[turn]])

    def written(self, turn: int) -> str:
        """Return what the model's turn number `turn` says, without the marks that end it."""
        return self.texts[self.turns[turn]].removesuffix(END).removesuffix(self.format.model[1])

    @cached_property
    def character(self) -> tuple[str, str]:
        """Greeting, and end of what comes before it: a system text's own beginning is one of many templates, the
        description of the character follows. Who shares one of the two is the same character.
        """
        return self.written(0), self.before(0)[-PERSONA_CHARS:]


def read_conversations(name: str, task: Task, mixes: Mapping[str, Path], split: str) -> list[Conversation]:
    """Return the rows of all mixtures that hold a model turn, in an order by hash that mixes the sources.

    Args:
        name: the task's name, for messages.
        task: its entry in the suite.
        mixes: folders of the mixtures; a row of several counts once.
        split: `validation` or `train`.

    Raises:
        StageError: the task names a file, or there is no such row.
    """
    if task.file is not None:
        raise StageError(f"task {name}: file: found {task.file!r}; {task.format} reads the mixtures, remove the key")
    found = set()
    for row in read_rows(mixes, split):
        turns = tuple(i for i, wrote in enumerate(row.by_model) if wrote and row.texts[i] != END)
        if turns and turns[0] > 0:
            found.add(Conversation(row.source, row.id, row.texts, turns, row.format_name))
    if not found:
        raise StageError(f"task {name}: {task.format}: no {split} row with a model turn in {len(mixes)} mixtures")
    return sorted(found, key=lambda c: (keyed_hash("conversation", c.source, c.id), c))


def next_turns(conversations: Sequence[Conversation]) -> Iterator[Item]:
    """Yield one item a conversation: its last model turn against a turn of another character of the same source.

    The other one is drawn by hash; its place, first or second, too. Both are cut to the same number of characters,
    where both end a word if they can: else the shorter one would win. Where a source holds one character only, the
    turn is another conversation's; where it holds one conversation only, another source's. Turns of fewer than
    MIN_TURN_CHARS are left out.
    """
    of_source: dict[str, list[Conversation]] = defaultdict(list)
    for conversation in conversations:
        of_source[conversation.source].append(conversation)
    drawn = {source: _Turns(members) for source, members in of_source.items()}
    every = _Turns(conversations)
    for mine in conversations:
        true = mine.written(len(mine.turns) - 1)
        found = drawn[mine.source].other(mine, true) or every.other(mine, true)
        if found is None:
            continue
        false, size = found
        true, false = true[:size], false[:size]
        flip = keyed_hash("place of the true turn", mine.source, mine.id) % 2
        choices, labels = ((false, true), (0, 1)) if flip else ((true, false), (1, 0))
        where = f"conversation {mine.source}/{mine.id}"
        yield make_item(where, mine.before(len(mine.turns) - 1), choices, labels, delimiter="")


class _Turns:
    """All model turns of some conversations, in an order by hash; each conversation begins elsewhere in it."""

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        texts = [(c, c.written(turn)) for c in conversations for turn in range(len(c.turns))]
        self._found = sorted(
            ((keyed_hash("other turn", c.source, c.id, text), text, c) for c, text in texts),
            key=lambda entry: entry[:2],
        )
        # One greeting or one ending for all is one character: nobody then looks for another.
        kinds: list[set[Any]] = [set(kind) for kind in zip(*(c.character for c in conversations), strict=True)]
        self._others = all(len(kind) > 1 for kind in kinds)

    def other(self, mine: Conversation, true: str) -> tuple[str, int] | None:
        """Return a turn of another character, else of another conversation, and where to cut it and `true`."""
        begin = bisect_left(self._found, keyed_hash("other turn", mine.source, mine.id), key=lambda entry: entry[0])
        for same_character in (False, True) if self._others else (True,):
            for _, text, theirs in (*self._found[begin:], *self._found[:begin]):
                if (theirs.source, theirs.id) == (mine.source, mine.id):
                    continue
                if not same_character and any(map(str.__eq__, theirs.character, mine.character)):
                    continue
                size = _cut(true, text)
                if size:
                    return text, size
        return None


def _cut(one: str, other: str) -> int:
    """Return how many characters of two texts to compare: up to where both end a word, else as many as both have; 0 if
    they are too few or the same.
    """
    most = min(len(one), len(other), TURN_CHARS)
    sizes = range(most, MIN_TURN_CHARS - 1, -1)
    size = next((n for n in sizes if _ends_word(one, n) and _ends_word(other, n)), most)
    return size if size >= MIN_TURN_CHARS and one[:size] != other[:size] else 0


def _ends_word(text: str, size: int) -> bool:
    return size == len(text) or (text[size].isspace() and not text[size - 1].isspace())


def refusals(conversations: Sequence[Conversation]) -> Iterator[Item]:
    """Yield one item a conversation: fixed refusals (label 0) and plain openings (label 1) of its first model turn."""
    labels = [0] * len(REFUSALS) + [1] * len(OPENERS)
    for c in conversations:
        yield make_item(f"conversation {c.source}/{c.id}", c.before(0), (*REFUSALS, *OPENERS), labels, delimiter="")


def refusal_margin(loglikelihoods: Sequence[float], item: Item) -> float:
    """Return log mean probability of the refusals minus that of the openings, in nats: above 0 it would refuse."""

    def log_mean(label: int) -> float:
        values = [v for v, found in zip(loglikelihoods, item.labels, strict=True) if found == label]
        best = max(values)
        return best + math.log(math.fsum(math.exp(v - best) for v in values) / len(values))

    return log_mean(0) - log_mean(1)


def _no_file(_: Task, path: Path) -> list[Item]:
    raise StageError(f"{path}: conversations come from the recipe's mixtures, not from a file")


DIALOGUES: Mapping[str, tuple[Format, Callable[[Sequence[Conversation]], Iterator[Item]]]] = {
    "next_turn": (Format(_no_file, {"acc": "acc"}, bos=True), next_turns),
    "refusal": (
        Format(_no_file, {"refusal_margin": "refusal_margin"}, bos=True, score=refusal_margin, counted=False),
        refusals,
    ),
}
"""{format of a task: (how it is scored, how its items are made)}."""
