"""Remarks below a table of benchmarks: what its figures can't be read without."""

from collections.abc import Iterable, Mapping
from typing import Any

from scripts.recipe.card import inert

AT_CHANCE = "Not distinguishable from guessing at the 5 % level."


class Footnotes:
    """Numbered remarks of one table, each text once, in the order of their first use."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def marks(self, texts: Iterable[str]) -> str:
        """Return what stands behind the words that the texts are about: ` (1, 2)`, or nothing."""
        numbers = [self._numbers.setdefault(text, len(self._numbers) + 1) for text in texts]
        return f" ({', '.join(map(str, numbers))})" if numbers else ""

    def lines(self) -> list[str]:
        """Return the list to print below the table, with an empty line before it; nothing if there are none."""
        return ["", *(f"- ({number}) {inert(text)}" for text, number in self._numbers.items())] if self._numbers else []


def task_remarks(row: Mapping[str, Any]) -> list[str]:
    """Return what is known of a row's task, errors of the data first."""
    bug, note = row.get("upstream_bug"), row.get("note")
    return [*([f"Known error: {bug}"] if bug else []), *([str(note)] if note else [])]


def metric_remarks(row: Mapping[str, Any]) -> list[str]:
    """Return what is known of a row's figure alone."""
    return [AT_CHANCE] if row.get("at_chance") else []
