"""What passes between adapters and filters: raw episodes, and rows that are refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Role = Literal["user", "model"]

MALFORMED = "malformed"
ENCODING = "encoding"
MINORS_GATE = "minors_gate"
ORIGINAL_DEFECT = "original_defect"
UNREADABLE = frozenset({MALFORMED, ENCODING})
"""Reasons that mean: this row is not of the source's format. A file of nothing else is no such file."""


class Turn(NamedTuple):
    """One message."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class RawEpisode:
    """One conversation as an adapter read it, after the repairs that only its source needs."""

    line: int
    """Line of the file (JSON array: item; parquet, CSV: row), counted from 1."""
    file: str
    """Name of the file, shown beside `line` when a source has several."""
    key: str
    """The source's own id or its raw content; never depends on the seed. The episode's id is a hash of it."""
    system: str
    turns: tuple[Turn, ...]
    context: str = ""
    """Text that belongs to the conversation but not to the episode (tags, definitions): the gate reads it too."""
    adult: bool = False
    """The source itself marks it as adult content."""
    generators: tuple[str, ...] = ()
    """Models that the row itself names as writers of its answers."""


@dataclass(frozen=True, slots=True)
class Refused:
    """One row that no episode came from."""

    line: int
    file: str
    reason: str
    detail: str
    text: str = ""
    """The row as far as it could be read: gated like any other, then shown as a sample."""
    key: str = ""
    """As in `RawEpisode`; empty if the row could not be read."""


Outcome = RawEpisode | Refused
Outcomes = Iterator[Outcome]


class RowError(Exception):
    """A row that an adapter refuses; caught where rows are counted, never shown as a traceback."""

    def __init__(self, detail: str, reason: str = MALFORMED, key: str = "") -> None:
        super().__init__(detail)
        self.detail, self.reason, self.key = detail, reason, key
