"""What a suite's task asks: items, held-out rows or conversations; known before any model is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from scripts.artifact.stage import StageError
from scripts.benchmark.dialogue import DIALOGUES, MIN_TURN_CHARS, Conversation, read_conversations
from scripts.benchmark.heldout import Row, held_out_rows, some_of
from scripts.benchmark.items import Item, items_sha256, prompts_sha256
from scripts.benchmark.render import Format, check_count, render
from scripts.benchmark.render import form_of as form_of_items
from scripts.benchmark.tree import group_items
from scripts.recipe.benchmark import Task

EXTRACT_CHARS = 800
"""Shortest conversation for extraction: surely 100 tokens, as none here has tokens of 8 characters on average. By
characters, since which conversations are asked must not depend on the model's tokenizer."""


@dataclass(frozen=True)
class Work:
    """One task; two of the three lists are empty."""

    items: list[Item] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    conversations: list[Conversation] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items) + len(self.rows) + len(self.conversations)

    def prompts_sha256(self) -> str:
        """Return the digest of all that the task puts before a model."""
        if self.items:
            return items_sha256(self.items)
        texts = [[row.source, row.id, row.text] for row in self.rows]
        return prompts_sha256([*texts, *([c.source, c.id, list(c.texts)] for c in self.conversations)])

    def groups(self, size: int) -> list[range]:
        """Return the runs of neighbours that are computed together, at most `size` each."""
        if self.items:
            return group_items([item.requests()[0][0] for item in self.items], size)
        return [range(i, min(i + size, len(self))) for i in range(0, len(self), size)]

    def sizes(self) -> list[int]:
        """Return the bytes of text of each item: how much work it is."""
        asked = [item.requests() for item in self.items]
        items = [len(pairs[0][0].encode()) + sum(len(text.encode()) for _, text in pairs) for pairs in asked]
        rows = [len(row.text.encode()) for row in self.rows]
        return [*items, *rows, *(len("".join(c.texts).encode()) for c in self.conversations)]


def form_of(name: str, task: Task) -> Format:
    """Return how a task of items is scored."""
    return DIALOGUES[task.format][0] if task.format in DIALOGUES else form_of_items(name, task)


def prepare(name: str, task: Task, files: Path | None, mixes: Mapping[str, Path]) -> Work:
    """Return the work of one task.

    Raises:
        StageError: a missing or bad file, no held-out rows, or another number of items than `expect_items`.
    """
    if task.format == "bits_per_byte":
        rows = held_out_rows(name, task, mixes)
        check_count(name, task, len(rows))
        return Work(rows=some_of(rows, task.limit))
    if task.format in DIALOGUES:
        most = task.limit if task.expect_items is None else None  # those beyond the limit would be made for nothing
        items = list(islice(DIALOGUES[task.format][1](read_conversations(name, task, mixes, "validation")), most))
        if not items:
            raise StageError(
                f"task {name}: {task.format} found no two held-out conversations whose model turns have "
                f"{MIN_TURN_CHARS} characters and differ; raise val_set_size, or remove the task"
            )
        check_count(name, task, len(items))
        return Work(items=items[: task.limit])
    if task.format in ("generation", "extraction"):
        found = read_conversations(name, task, mixes, task.split)
        if task.format == "extraction":
            found = [c for c in found if sum(map(len, c.texts)) >= EXTRACT_CHARS]
        if not found:
            raise StageError(
                f"task {name}: no {task.split} conversation of {EXTRACT_CHARS} characters; remove the task"
            )
        check_count(name, task, len(found))
        return Work(conversations=found[: task.limit])
    return Work(items=render(name, task, files))
