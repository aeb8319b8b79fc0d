"""Which episodes a mixture takes, how often, which rows are held out, and in which order the rows stand.

Every choice is a keyed hash of (seed, purpose, source, id): the order of the input rows can't matter, a larger cap
or weight only adds rows, and all mixtures of a seed hold out the same conversations.
"""

import heapq
import math
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Literal, NamedTuple

from scripts.recipe.base import keyed_hash
from scripts.recipe.mix import Share

_HASHES = 1 << 64


class Row(NamedTuple):
    """One row of the mixture: an episode, or one of its repeats."""

    source: str
    episode: str
    """Id in the clean artifact."""
    id: str
    """Id in the mixture: `episode`, then `episode#2`, `episode#3`, ... for repeats."""


class Split(NamedTuple):
    """Rows in the order of the files."""

    train: list[Row]
    validation: list[Row]


def take(seed: int, source: str, ids: Iterable[str], share: Share, chars: Mapping[str, int] | None = None) -> list[Row]:
    """Return the rows that a mixture takes of one source, sorted by episode id, repeats side by side.

    Caps keep the smallest hashes: `max_rows` of them, and as many as fit into `max_chars`, for which `chars` gives the
    length of each episode; the first that doesn't fit ends it, so that a larger cap only adds rows. Of `weight` the
    whole part is the number of repeats, the fraction the share of the episodes that come once more (an expectation,
    decided for each episode alone).
    """
    kept = list(ids)
    most = len(kept) if share.max_rows is None else share.max_rows
    if most < len(kept) or share.max_chars is not None:
        kept = heapq.nsmallest(most, kept, key=lambda i: (keyed_hash(seed, "mix.cap", source, i), i))
    if share.max_chars is not None:
        sums = accumulate((chars or {})[i] for i in kept)
        kept = [i for i, total in zip(kept, sums, strict=True) if total <= share.max_chars]
    whole = math.floor(share.weight)
    rows = []
    for episode in sorted(kept):
        copies = whole + _chance(share.weight - whole, seed, "mix.weight", source, episode)
        rows += [Row(source, episode, f"{episode}#{n}" if n > 1 else episode) for n in range(1, copies + 1)]
    return rows


def split(seed: int, rows: Mapping[str, list[Row]], val_set_size: float, how: Literal["hash", "file_tail"]) -> Split:
    """Hold out a share of the rows.

    Args:
        seed: the recipe's.
        rows: what `take` returned for each source, in the recipe's order.
        val_set_size: share to hold out.
        how: `hash` decides for each conversation (a held-out one is in no training row, and is held out once);
            `file_tail` writes source after source and holds out the last ceil(share * rows) rows, as the original
            run did: they may all come from the last source.
    """
    if how == "file_tail":
        file = [row for of_source in rows.values() for row in of_source]
        cut = len(file) - math.ceil(val_set_size * len(file))
        return Split(file[:cut], file[cut:])
    found = Split([], [])
    for row in (row for of_source in rows.values() for row in of_source):
        if not _chance(val_set_size, seed, "mix.validation", row.source, row.episode):
            found.train.append(row)
        elif row.id == row.episode:
            found.validation.append(row)
    for part in found:
        part.sort(key=lambda row: (keyed_hash(seed, "mix.order", row.source, row.id), row))
    return found


def _chance(share: float, seed: int, purpose: str, source: str, episode: str) -> bool:
    """Return True for about `share` of all episodes; those of a smaller share stay true for a larger one."""
    return keyed_hash(seed, purpose, source, episode) < int(share * _HASHES)
