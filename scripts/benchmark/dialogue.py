"""Items made from held-out conversations: the true next turn against another one, refusals against plain openings."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from scripts.artifact.stage import StageError
from scripts.benchmark.items import Item, make_item
from scripts.benchmark.render import Format
from scripts.recipe.base import keyed_hash
from scripts.recipe.benchmark import Task

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

TURN_CHARS = 400
"""Most of a turn that is compared: about 100 tokens."""

PERSONA_CHARS = 100
"""End of a system text by which characters are told apart."""


@dataclass(frozen=True, order=True)
class Conversation:
    """One row of a mixture: its texts in order, and which of them are the model's turns."""

    source: str
    id: str
    texts: tuple[str, ...]
    turns: tuple[int, ...]
    """Indices of the texts that the model is to write."""

    def before(self, turn: int) -> str:
        """Return the text before the model's turn number `turn`."""
        return "".join(self.texts[: self.turns[turn]])

    def written(self, turn: int) -> str:
        """Return the model's turn number `turn`."""
        return self.texts[self.turns[turn]]


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
    for folder in mixes.values():
        for row in pq.read_table(folder / f"{split}.parquet", columns=["id", "source", "segments"]).to_pylist():
            texts = tuple(segment["text"] for segment in row["segments"])
            turns = tuple(i for i, segment in enumerate(row["segments"]) if segment["trained"] and segment["text"])
            if turns and turns[0] > 0:
                found.add(Conversation(row["source"], row["id"], texts, turns))
    if not found:
        raise StageError(f"task {name}: {task.format}: no {split} row with a model turn in {len(mixes)} mixtures")
    return sorted(found, key=lambda c: (keyed_hash("conversation", c.source, c.id), c))


def next_turns(conversations: Sequence[Conversation]) -> list[Item]:
    """Return one item a conversation: its last model turn against a turn of another character of the same source.

    The other one is drawn by hash; its place, first or second, too. Both are cut to the same number of characters, at
    most TURN_CHARS: else the shorter one would win. Where a source holds one character only, the turn is another
    conversation's; where it holds one conversation only, another source's.
    """
    items = []
    for mine in conversations:
        turn = len(mine.turns) - 1
        true = mine.written(turn)
        same_source = [c for c in conversations if c.id != mine.id and c.source == mine.source]
        others = [c for c in same_source if not _same_character(c, mine)]
        others = others or same_source or [c for c in conversations if c.id != mine.id]
        texts = {c.written(t) for c in others for t in range(len(c.turns))}
        pairs = [(text, min(len(text), len(true), TURN_CHARS)) for text in texts]
        pairs = [(text, size) for text, size in pairs if text[:size] != true[:size]]
        if not pairs:
            continue
        false, size = min(pairs, key=lambda pair: (keyed_hash("other turn", mine.source, mine.id, pair[0]), pair))
        true, false = true[:size], false[:size]
        flip = keyed_hash("place of the true turn", mine.source, mine.id) % 2
        choices, labels = ((false, true), (0, 1)) if flip else ((true, false), (1, 0))
        where = f"conversation {mine.source}/{mine.id}"
        items.append(make_item(where, mine.before(turn), choices, labels, delimiter=""))
    return items


def _same_character(one: Conversation, other: Conversation) -> bool:
    """Whether two conversations share a greeting, or the end of what comes before it: a system text's own beginning
    is one of many templates, the description of the character follows.
    """
    return one.written(0) == other.written(0) or one.texts[0][-PERSONA_CHARS:] == other.texts[0][-PERSONA_CHARS:]


def refusals(conversations: Sequence[Conversation]) -> list[Item]:
    """Return one item a conversation: fixed refusals (label 0) and plain openings (label 1) of its first model turn."""
    labels = [0] * len(REFUSALS) + [1] * len(OPENERS)
    return [
        make_item(f"conversation {c.source}/{c.id}", c.before(0), (*REFUSALS, *OPENERS), labels, delimiter="")
        for c in conversations
    ]


def refusal_margin(loglikelihoods: Sequence[float], item: Item) -> float:
    """Return log mean probability of the refusals minus that of the openings, in nats: above 0 it would refuse."""

    def log_mean(label: int) -> float:
        values = [v for v, found in zip(loglikelihoods, item.labels, strict=True) if found == label]
        best = max(values)
        return best + math.log(math.fsum(math.exp(v - best) for v in values) / len(values))

    return log_mean(0) - log_mean(1)


def _no_file(_: Task, path: Path) -> list[Item]:
    raise StageError(f"{path}: conversations come from the recipe's mixtures, not from a file")


DIALOGUES: Mapping[str, tuple[Format, Callable[[Sequence[Conversation]], list[Item]]]] = {
    "next_turn": (Format(_no_file, {"acc": "acc"}, bos=True), next_turns),
    "refusal": (
        Format(_no_file, {"refusal_margin": "refusal_margin"}, bos=True, score=refusal_margin, counted=False),
        refusals,
    ),
}
"""{format of a task: (how it is scored, how its items are made)}."""
