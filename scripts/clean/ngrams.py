"""Sets of word n-grams, and the search for their members in a text.

An n-gram is a 64-bit hash of its words under a fixed key. By chance a run of words meets one of k foreign n-grams with
probability k / 2^64: over a mixture of 432M tokens and benchmarks of 2.3M n-grams that is 4 in 100,000 for one row.
"""

import numpy as np
from numpy.typing import NDArray

from scripts.recipe.compiled import compiled
from scripts.recipe.words import Hashes, mix

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no word's weight is lost modulo 2^64
_EMPTY = np.uint64(0)
# Of foreign n-grams 1 in 60 passes the filter, two bits in one word: 2 bytes a key stay in the cache, 16 of the table
# don't, and each look there costs as much as 20 in the filter.
_FILTER_BITS_A_KEY = 16
_BIT, _OTHER = np.uint64(63), np.uint64(6)


@compiled
def _weight(size: int) -> np.uint64:  # pragma: no cover - compiled
    """Return what the word before a run of `size` words weighs in the rolling sum."""
    weight = np.uint64(1)
    for _ in range(size):
        weight = weight * _BASE
    return weight


@compiled
def grams(words: Hashes, size: int, found: Hashes) -> int:  # pragma: no cover - compiled
    """Write the hash of each run of `size` words (none of them 0); return how many there are."""
    rolling, oldest = _EMPTY, _weight(size)
    for i in range(len(words)):
        rolling = rolling * _BASE + words[i]
        if i >= size:
            rolling -= words[i - size] * oldest
        if i >= size - 1:
            found[i - size + 1] = max(mix(rolling), np.uint64(1))
    return max(0, len(words) - size + 1)


@compiled
def _fill(keys: Hashes, slots: Hashes, bits: Hashes, shift: np.uint64) -> None:  # pragma: no cover
    mask, one = np.uint64(len(slots) - 1), np.uint64(1)
    for key in keys:
        bits[key >> shift] |= (one << (key & _BIT)) | (one << ((key >> _OTHER) & _BIT))
        at = key & mask
        while slots[at] != _EMPTY:
            at = (at + np.uint64(1)) & mask
        slots[at] = key


@compiled
def _scan(
    words: Hashes, size: int, slots: Hashes, bits: Hashes, shift: np.uint64, keys: Hashes, at: Hashes
) -> int:  # pragma: no cover - compiled
    """Write the members among the runs of `size` words, and where they begin; return how many there are."""
    runs = grams(words, size, keys)
    # Without a branch in the loop the processor has many of these reads, far from its cache, under way at a time.
    maybe = np.int64(0)
    for i in range(runs):
        word = bits[keys[i] >> shift]
        at[maybe] = i
        maybe += np.int64((word >> (keys[i] & _BIT)) & (word >> ((keys[i] >> _OTHER) & _BIT)) & np.uint64(1))
    mask, count = np.uint64(len(slots) - 1), 0
    for k in range(maybe):
        key = keys[at[k]]
        slot = key & mask
        while slots[slot] != _EMPTY and slots[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        if slots[slot] == key:
            keys[count], at[count] = key, at[k]
            count += 1
    return count


class GramSet:
    """A fixed set of n-grams of one size, with what each of them points to."""

    def __init__(self, size: int, keys: Hashes, targets: NDArray[np.int64]) -> None:
        """Take parallel arrays `[pairs]`: an n-gram and its target, such as an item; any order, repeats allowed."""
        self.size = size
        order = np.lexsort((targets, keys))
        self._keys, starts = np.unique(keys[order], return_index=True)
        self._targets, self._starts = targets[order], np.append(starts, len(order))
        slots = 1 << max(4, (2 * len(self._keys)).bit_length())
        bits = 1 << max(12, (_FILTER_BITS_A_KEY * len(self._keys) - 1).bit_length())
        self._slots, self._bits = np.zeros(slots, dtype=np.uint64), np.zeros(bits // 64, dtype=np.uint64)
        self._shift = np.uint64(64 - (bits.bit_length() - 7))
        if len(self._keys):
            _fill(self._keys, self._slots, self._bits, self._shift)
        self._found = np.empty((2, 1 << 10), dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._keys)

    def search(self, words: Hashes) -> list[tuple[int, list[int]]]:
        """Return (first word, targets) of each member in a text, in order."""
        if len(words) < self.size or not len(self):
            return []
        if len(words) > self._found.shape[1]:
            self._found = np.empty((2, 2 * len(words)), dtype=np.uint64)
        keys, at = self._found
        count = _scan(words, self.size, self._slots, self._bits, self._shift, keys, at)
        if not count:
            return []
        places = np.searchsorted(self._keys, keys[:count])
        return [
            (int(first), self._targets[self._starts[place] : self._starts[place + 1]].tolist())
            for first, place in zip(at[:count], places, strict=True)
        ]
