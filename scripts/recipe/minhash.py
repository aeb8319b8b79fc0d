"""MinHash signatures of word 5-grams in bands, the true Jaccard similarity of candidates, and their clusters.

Broder, "On the resemblance and containment of documents" (1997). A pair of similarity J shares a band with
probability 1 - (1 - J^rows)^bands. The usual 14 x 8 of the same 112 permutations finds only 92.4 % of the pairs at
J = 0.8; 16 x 7 finds 97.7 %, and what it finds beside them is thrown out by comparing the 5-grams themselves.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scripts.recipe.base import keyed_hash
from scripts.recipe.compiled import compiled
from scripts.recipe.words import Hashes, mix

SHINGLE_WORDS, BANDS, ROWS = 5, 16, 7
PERMUTATIONS = BANDS * ROWS
MOST_COMPARED = 1000
"""Rows with which one row is compared in one band. Only where more than 1,000 rows of like length agree in 7 minima
and yet are not copies of one another could a pair be missed; it keeps a family of n such rows from costing n^2."""

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no word's weight is lost modulo 2^64
_HALF = np.uint64(32)
Permutations = NDArray[np.uint32]


def permutations(seed: int) -> Permutations:
    """Return `[2, 112]`: odd factors and offsets of x -> a x + b modulo 2^32."""
    drawn = [keyed_hash(seed, "near_duplicates.permutation", i) for i in range(PERMUTATIONS)]
    return np.array([[draw & 0xFFFFFFFF | 1 for draw in drawn], [draw >> 32 for draw in drawn]], dtype=np.uint32)


@compiled
def sign(words: Hashes, maps: Permutations, shingles: Hashes, bands: Hashes) -> int:  # pragma: no cover - compiled
    """Write the 5-grams of a row and the 16 keys of its bands.

    Args:
        words: `[words]`, at least one. A row of fewer than five has one shingle: all of it.
        maps: of `permutations`.
        shingles: room for `words` hashes; filled in order of the text, repeats included.
        bands: `[16]`.

    Returns:
        The number of shingles.
    """
    size = min(SHINGLE_WORDS, len(words))
    count = len(words) - size + 1
    smallest = np.full(PERMUTATIONS, 0xFFFFFFFF, dtype=np.uint32)
    factors, offsets = maps[0], maps[1]
    for i in range(count):
        shingle = np.uint64(size)
        for k in range(size):
            shingle = shingle * _BASE + words[i + k]
        shingle = mix(shingle)
        shingles[i] = shingle
        low = np.uint32(shingle)
        for p in range(PERMUTATIONS):
            image = np.uint32(np.uint32(factors[p] * low) + offsets[p])
            smallest[p] = min(smallest[p], image)
    for band in range(BANDS):
        key = np.uint64(band)
        for row in range(ROWS):
            key = mix(key ^ np.uint64(smallest[band * ROWS + row])) + _BASE
        bands[band] = key
    return count


class Texts(NamedTuple):
    """The shingles of all rows; rows are numbered by precedence, the best first."""

    shingles: Hashes
    starts: NDArray[np.int64]
    """Where a row begins in `shingles`."""
    lengths: NDArray[np.int64]
    """Shingles of a row, repeats included."""
    distinct: NDArray[np.int64]
    """How many differ; -1 until the row is first compared, when they are sorted in place."""


@compiled
def _sort(values: Hashes) -> None:  # pragma: no cover - compiled
    """Sort in place (Shell's sort: a few hundred values at a time; compiling numpy's own takes seconds)."""
    gap = 1
    while gap < len(values) // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, len(values)):
            value, j = values[i], i
            while j >= gap and values[j - gap] > value:
                values[j] = values[j - gap]
                j -= gap
            values[j] = value
        gap //= 3


@compiled
def _distinct(texts: Texts, row: int) -> int:  # pragma: no cover - compiled
    """Return how many shingles of a row differ, which from then on stand first, sorted."""
    if texts.distinct[row] < 0:
        own = texts.shingles[texts.starts[row] : texts.starts[row] + texts.lengths[row]]
        _sort(own)
        count = 1
        for i in range(1, len(own)):
            if own[i] != own[count - 1]:
                own[count] = own[i]
                count += 1
        texts.distinct[row] = count
    return texts.distinct[row]  # type: ignore[no-any-return]


@compiled
def similarity(texts: Texts, a: int, b: int) -> float:  # pragma: no cover - compiled
    """Return the Jaccard similarity of the sets of shingles of rows `a` and `b`."""
    left = texts.shingles[texts.starts[a] : texts.starts[a] + _distinct(texts, a)]
    right = texts.shingles[texts.starts[b] : texts.starts[b] + _distinct(texts, b)]
    i, j, shared = 0, 0, 0
    while i < len(left) and j < len(right):
        x, y = left[i], right[j]
        shared += x == y
        i += x <= y
        j += y <= x
    return shared / (len(left) + len(right) - shared)


@compiled
def root(parent: NDArray[np.int64], row: int) -> int:  # pragma: no cover - compiled
    """Return the best row of the cluster of `row`, and shorten the way to it."""
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row


@compiled
def join_band(
    keys: Hashes, order: NDArray[np.int64], texts: Texts, parent: NDArray[np.int64], threshold: float
) -> int:  # pragma: no cover - compiled
    """Join the rows that share a key of one band and are as similar as `threshold`.

    Args:
        keys: `[rows]`, of this band.
        order: rows by key, those of one key in order of precedence.
        texts: all rows.
        parent: `[rows]`, the forest of union-find; a cluster's root is its best row.
        threshold: smallest similarity.

    Returns:
        The number of pairs compared. A pair that is joined already isn't: it can change no cluster.
    """
    compared, start, rows = 0, 0, len(order)
    while start < rows:
        end = start + 1
        while end < rows and keys[order[end]] == keys[order[start]]:
            end += 1
        for i in range(start, end):
            for j in range(i + 1, min(end, i + 1 + MOST_COMPARED)):
                a, b = order[i], order[j]
                root_a, root_b = root(parent, a), root(parent, b)
                if root_a == root_b:
                    continue
                # Sets of n and m elements have at most min / max in common; sizes are cheaper than the sets.
                here, there = _distinct(texts, a), _distinct(texts, b)
                if min(here, there) < threshold * max(here, there):
                    continue
                compared += 1
                if similarity(texts, a, b) >= threshold:
                    parent[max(root_a, root_b)] = min(root_a, root_b)
        start = end
    return compared
