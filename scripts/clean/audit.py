"""What came in, what went out, and why not: `rejected.jsonl`, `audit.json`, `samples.json`."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Protocol, TextIO

from scripts.artifact.stage import StageError
from scripts.clean.episode import MINORS_GATE
from scripts.clean.store import GENERAL, Episode
from scripts.clean.text import repair_text
from scripts.recipe.base import keyed_hash

SAMPLES = 5
SAMPLE_CHARS = 300
_SMALLEST_BAR_CHARS = 64
_TO_JSON = json.JSONEncoder(ensure_ascii=False).encode


class Placed(Protocol):
    """Anything with a place in a file."""

    @property
    def line(self) -> int:
        """Line, counted from 1."""

    @property
    def file(self) -> str:
        """Name of the file."""


class _Sample:
    """The few items with the smallest keyed hash: the same ones in whatever order they come."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str, Any]] = []

    def offer(self, rank: int, name: str, item: Any) -> None:
        """Take an item if its rank is among the smallest so far."""
        if len(self._found) < SAMPLES or rank < self._found[-1][0]:
            self._found = sorted([*self._found, (rank, name, item)], key=lambda f: f[:2])[:SAMPLES]

    def items(self) -> list[Any]:
        """Return the items by rank."""
        return [item for _, _, item in self._found]


def _shown(episode: Episode) -> dict[str, Any]:
    turns = [turn._asdict() for turn in episode.turns]
    shown = {"id": episode.id, "source": episode.source, "label": episode.label, "system": episode.system}
    return {**shown, "turns": turns}


class Audit:
    """Counts rows while they pass and writes the refused ones at once."""

    def __init__(self, out: Path, source: str, seed: int, several_files: bool) -> None:
        self._out, self._source, self._seed, self._several = out, source, seed, several_files
        self._file: TextIO | None = None
        self._rejected: Counter[str] = Counter()
        self._rows_out = self._turns = self._chars = 0
        self._bars: Counter[int] = Counter()
        self._rejected_chars: Counter[str] = Counter()
        self.chars_in = 0
        """Characters of system texts and turns (of a row that can't be read: all of it), before any filter."""
        self._kept = _Sample()
        self._refused: dict[str, _Sample] = {}

    def __enter__(self) -> "Audit":
        self._file = (self._out / "rejected.jsonl").open("w", encoding="utf-8", newline="\n")
        return self

    def __exit__(self, *unused: object) -> None:
        if self._file is not None:
            self._file.close()

    def refuse(self, row: Placed, name: str, reason: str, detail: str = "", shown: str = "") -> None:
        """Record one refused row; of the minors gate only the id."""
        self._rejected[reason] += 1
        if reason == MINORS_GATE:
            self._write({"id": name, "reason": reason})
            return
        self._rejected_chars[reason] += len(shown)
        where = f"{row.file}: " if self._several else ""
        self._write({"line": row.line, "id": name, "reason": reason, "detail": repair_text(f"{where}{detail}")})
        sample = repair_text(shown).strip()[:SAMPLE_CHARS]
        if sample:
            rank = keyed_hash(self._seed, "refused_sample", reason, name)
            self._refused.setdefault(reason, _Sample()).offer(rank, name, sample)

    def _write(self, line: dict[str, object]) -> None:
        assert self._file is not None, "Audit is used as a context manager"
        self._file.write(_TO_JSON(line) + "\n")

    def keep(self, episode: Episode) -> None:
        """Record one kept episode."""
        chars = len(episode.system) + sum(len(turn.text) for turn in episode.turns)
        self._rows_out += 1
        self._turns += len(episode.turns)
        self._chars += chars
        self._bars[max(0, (chars - 1) // _SMALLEST_BAR_CHARS).bit_length()] += 1
        if episode.label == GENERAL:
            self._kept.offer(keyed_hash(self._seed, "kept_sample", episode.id), episode.id, episode)

    def finish(self, rows_in: int, turns_cut: int, more: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write both files and return the counts for the artifact's record.

        Args:
            rows_in: rows read.
            turns_cut: turns left out of rows that were kept.
            more: further tables of `audit.json`: contamination by benchmark task, the price of compat switches.

        Raises:
            StageError: a row was lost on the way, which must never happen.
        """
        rejected = dict(sorted(self._rejected.items()))
        if rows_in != self._rows_out + sum(rejected.values()):
            raise StageError(
                f"{self._source}: {rows_in} rows came in, {self._rows_out} went out and {sum(rejected.values())} were "
                "refused; please report this as a fault of the clean stage"
            )
        counts = {"rows_in": rows_in, "rows_out": self._rows_out, "rejected": rejected}
        bars = range(max(self._bars, default=-1) + 1)
        sizes = {
            "turns": self._turns,
            "chars_in": self.chars_in,
            "chars": self._chars,
            "rejected_chars": dict(sorted(self._rejected_chars.items())),
            "length_histogram": [[_SMALLEST_BAR_CHARS << bar, self._bars[bar]] for bar in bars],
        }
        refused = {reason: sample.items() for reason, sample in sorted(self._refused.items())}
        self._json("audit.json", {"source": self._source, **counts, **sizes, **(more or {})})
        self._json("samples.json", {"kept": list(map(_shown, self._kept.items())), "rejected": refused})
        return {**counts, "turns": self._turns, "chars": self._chars, "turns_cut": turns_cut}

    def _json(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
        (self._out / name).write_text(text + "\n", encoding="utf-8", newline="\n")
