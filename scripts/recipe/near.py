"""Near-duplicates among rows that come one by one: which rows go, and for the sake of which.

Two rows are joined if they share a band and the Jaccard similarity of their 5-grams reaches the threshold; clusters
are closed under that, and of each the longest row stays. Nothing depends on the order of the rows, on how they were
sharded or on threads. Memory: about 300 bytes a row; the 5-grams themselves (8 bytes a word) lie in a
file, of which 1,024 rows, or one family of rows that agree in a band, are looked at together.
"""

import mmap
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scripts.recipe.base import keyed_hash
from scripts.recipe.minhash import BANDS, Texts, join_band, permutations, root, sign, similarity
from scripts.recipe.words import Hashes, Words

# Rows looked at before their pages are let go. Linux maps 64 kB around each page touched: 64 MB at most.
_ROWS_AT_ONCE = 1024


class Duplicate(NamedTuple):
    """Why a row goes."""

    kept: str
    """Id of the row that stays: the longest of its cluster (in words; ties by keyed hash of the id)."""
    similarity: float
    """Jaccard similarity with that row; below the threshold only where a chain of near-duplicates leads to it."""


class NearDuplicates:
    """Collects rows by `add`; `found` then tells which are near-duplicates. A context that owns one file."""

    def __init__(self, path: Path, seed: int, threshold: float) -> None:
        self._path, self._seed, self._threshold = path, seed, threshold
        self._words = Words(keyed_hash(seed, "near_duplicates.words"))
        self._maps = permutations(seed)
        self._ids: list[str] = []
        self._lengths = array("q")
        self._bands = bytearray()
        self._band = np.empty(BANDS, dtype=np.uint64)
        self._shingles = np.empty(0, dtype=np.uint64)
        self._open = ExitStack()

    def __enter__(self) -> "NearDuplicates":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open.enter_context(self._path.open("wb"))  # empties what a killed attempt left
        self._open.callback(self._path.unlink, missing_ok=True)
        return self

    def __exit__(self, *unused: object) -> None:
        self._open.close()

    def add(self, name: str, text: str) -> None:
        """Take one row; a text without a single word is like no other."""
        words = self._words.of(text)
        if not len(words):
            return
        if len(words) > len(self._shingles):
            self._shingles = np.empty(2 * len(words), dtype=np.uint64)
        count = sign(words, self._maps, self._shingles, self._band)
        self._file.write(self._shingles[:count].tobytes())
        self._bands += self._band.tobytes()
        self._ids.append(name)
        self._lengths.append(count)

    def found(self) -> dict[str, Duplicate]:
        """Return the rows to leave out, by id. To be called once, after the last row."""
        self._file.close()
        return dict(self._duplicates()) if len(self._ids) > 1 else {}

    def _duplicates(self) -> Iterator[tuple[str, Duplicate]]:
        """Number the rows by precedence, join them band by band, and yield what isn't the first of its cluster."""
        rows = len(self._ids)
        lengths = np.frombuffer(self._lengths, dtype=np.int64)
        ties = np.array([keyed_hash(self._seed, "near_duplicates.tie", name) for name in self._ids], dtype=np.uint64)
        order = np.lexsort((ties, -lengths))
        starts = (np.cumsum(lengths) - lengths)[order]
        # Rows are sorted in place when they are first compared; those that never are stay on the disk.
        shingles = np.memmap(self._path, dtype=np.uint64, mode="r+")
        texts = Texts(shingles, starts, lengths[order], np.full(rows, -1))
        parent = np.arange(rows)
        keys = np.frombuffer(self._bands, dtype=np.uint64).reshape(rows, BANDS)
        for band in range(BANDS):
            of_band = keys[order, band]
            for candidates in _shared(of_band):
                join_band(of_band, candidates, texts, parent, self._threshold)
                _let_go(shingles)
        for done, row in enumerate(np.flatnonzero(parent != np.arange(rows)).tolist()):
            if done % (_ROWS_AT_ONCE // 2) == 0:
                _let_go(shingles)
            best = root(parent, row)
            name, kept = self._ids[order[row]], self._ids[order[best]]
            yield name, Duplicate(kept, similarity(texts, row, best))


def _let_go(file: np.memmap[Any, np.dtype[np.uint64]]) -> None:
    """Unmap the pages of a mapped file, which count as our memory while mapped; what was changed stays changed."""
    file._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def _shared(keys: Hashes) -> Iterator[NDArray[np.int64]]:
    """Yield the rows that share their key with another, by key and then by number, some thousands at a time."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    shared = order[np.append(same, False) | np.append(False, same)]
    if len(shared):
        # Only between two keys may they be divided.
        borders = np.flatnonzero(keys[shared[1:]] != keys[shared[:-1]]) + 1
        last = np.searchsorted(borders, np.arange(_ROWS_AT_ONCE, len(shared), _ROWS_AT_ONCE))
        yield from np.split(shared, np.unique(borders[last[last < len(borders)]]))
