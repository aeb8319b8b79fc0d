"""A memo of words and their token ids, compiled: 100 times as fast as a tokenizer on words that it has met.

A piece is cut at each single space. What follows a space up to the next one is a word, with the spaces before it that
are too many for one; the text before the first space is a word of another kind, which has none before it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.recipe.compiled import compiled
from scripts.recipe.words import mix

Bytes = NDArray[np.uint8]
Ids = NDArray[np.unsignedinteger[Any]]
Numbers = NDArray[np.int64]
Table = NDArray[np.int32]
"""By hash, the number of a word and one; 0 where there is none."""

WORDS, CHARS = 1 << 20, 1 << 26
"""Beyond either, the memo starts anew: some 100 MB."""
_TOGETHER = 256
"""New words in one call: with many more, sentencepiece's queue of merges leaves the L1 cache."""
_SPACE, _BREAK = np.uint8(32), np.uint8(10)
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # of FNV-1a
# Columns of what is known of a word.
_TEXT, _SIZE, _IDS, _COUNT = 0, 1, 2, 3


@compiled
def _find(
    raw: Bytes, start: int, end: int, first: bool, table: Table, hashes: NDArray[np.uint64], known: Numbers,
    chars: Bytes, used: Numbers,
) -> int:  # pragma: no cover - compiled  # fmt: skip
    """Return the number of a word, which is entered with unknown ids if it is new; `used`: words, chars."""
    word = _BASIS ^ np.uint64(first)
    for i in range(start, end):
        word = (word ^ np.uint64(raw[i])) * _PRIME
    word = mix(word) & ~np.uint64(1) | np.uint64(first)  # the kind is compared with the hash
    last = len(table) - 1
    slot = np.int64(word >> np.uint64(1)) & last
    while table[slot]:
        index = table[slot] - 1
        if hashes[index] == word and known[index, _SIZE] == end - start:
            at, same = known[index, _TEXT], True
            for i in range(end - start):
                same &= chars[at + i] == raw[start + i]
            if same:
                return int(index)
        slot = (slot + 1) & last
    index, at = used[0], used[1]
    table[slot], hashes[index] = index + 1, word
    known[index, _TEXT], known[index, _SIZE] = at, end - start
    for i in range(end - start):
        chars[at + i] = raw[start + i]
    used[0], used[1] = index + 1, at + end - start
    return int(index)


@compiled
def _find_all(
    raw: Bytes, ends: Numbers, continued: NDArray[np.bool_], table: Table, hashes: NDArray[np.uint64],
    known: Numbers, chars: Bytes, used: Numbers, words: Table, counts: Numbers,
) -> int:  # pragma: no cover - compiled  # fmt: skip
    """Write the numbers of all words to `words`, how many each piece has to `counts`; return how many they are.

    `ends`: where each piece of `raw` ends.
    """
    written, begin = 0, 0
    for piece in range(len(ends)):
        end, before = ends[piece], written
        position = begin
        first = continued[piece] and begin < end and raw[begin] != _SPACE
        if continued[piece] and not first:
            position += 1  # the piece begins with a space, which is its first word's
        more = begin < end
        while more:
            stop = position
            if not first:
                while stop < end and raw[stop] == _SPACE:
                    stop += 1
            while stop < end and raw[stop] != _SPACE:
                stop += 1
            words[written] = _find(raw, position, stop, first, table, hashes, known, chars, used)
            written += 1
            first, more, position = False, stop < end, stop + 1
        counts[piece] = written - before
        begin = end
    return written


@compiled
def _write(words: Table, known: Numbers, ids: Ids, out: Ids, counts: Numbers) -> int:  # pragma: no cover - compiled
    """Write the ids of words to `out`; each piece's count of words becomes that of its ids; return their number."""
    written, word = 0, 0
    for piece in range(len(counts)):
        before = written
        for _ in range(counts[piece]):
            at, count = known[words[word], _IDS], known[words[word], _COUNT]
            for i in range(count):
                out[written + i] = ids[at + i]
            written += count
            word += 1
        counts[piece] = written - before
    return written


@compiled
def _enter_again(table: Table, hashes: NDArray[np.uint64]) -> None:  # pragma: no cover - compiled
    """Fill an empty `table` from the hashes of all words."""
    last = len(table) - 1
    for index in range(len(hashes)):
        slot = np.int64(hashes[index] >> np.uint64(1)) & last
        while table[slot]:
            slot = (slot + 1) & last
        table[slot] = index + 1


@compiled
def _lines(text: Bytes, sizes: Numbers, bare: NDArray[np.bool_], out: Bytes) -> int:  # pragma: no cover - compiled
    """Write words that lie one after another as lines, with a space before each that isn't `bare`; return the size."""
    at, written = 0, 0
    for word in range(len(sizes)):
        if not bare[word]:
            out[written] = _SPACE
            written += 1
        for i in range(at, at + sizes[word]):
            out[written] = text[i]
            written += 1
        at += sizes[word]
        out[written] = _BREAK
        written += 1
    return written


@compiled
def _divide(
    text: Bytes, sizes: Numbers, ids: Ids, line_break: int, kept: Ids, counts: Numbers
) -> int:  # pragma: no cover - compiled
    """Write the ids of lines to `kept` without the line breaks that divide them; return how many."""
    at, position, written = 0, 0, 0
    for word in range(len(sizes)):
        breaks, before = 0, written
        for i in range(at, at + sizes[word]):
            breaks += text[i] == _BREAK
        at += sizes[word]
        while breaks or ids[position] != line_break:
            breaks -= ids[position] == line_break
            kept[written] = ids[position]
            position, written = position + 1, written + 1
        position += 1
        counts[word] = written - before
    return written


class WordMemo:
    """Encodes pieces by their words; what is new is encoded by the tokenizer, each word once.

    Args:
        encode: returns the ids of a text, with no space put before it.
        dtype: of the ids, little-endian as numpy has them here.
        line_break: id of a line break, if no merge crosses one: the new words are then encoded together, since of a
            call for one word more than half the time is Python's.
    """

    def __init__(
        self, encode: Callable[[str], list[int]], dtype: type[np.unsignedinteger[Any]], line_break: int | None
    ) -> None:
        self._encode, self._dtype, self._line_break = encode, np.dtype(dtype), line_break
        self.clear()

    def __len__(self) -> int:
        return int(self._used[0])

    def clear(self) -> None:
        """Forget all words."""
        self._used = np.zeros(2, np.int64)
        self._learned = 0
        self._table = np.zeros(1 << 12, np.int32)
        self._hashes, self._known = np.empty(0, np.uint64), np.empty((0, 4), np.int64)
        self._chars, self._ids, self._ids_used = np.empty(0, np.uint8), np.empty(0, self._dtype), 0

    def ids(self, pieces: Sequence[bytes], continued: NDArray[np.bool_]) -> tuple[Ids, Numbers]:
        """Return the ids of all pieces, one after another, and how many each has.

        Args:
            pieces: UTF-8.
            continued: whether a piece goes on where a text stopped `[pieces]`; else a space is put before it.
        """
        raw = b"".join(pieces)
        ends = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))
        room = raw.count(b" ") + len(pieces)
        self._make_room(room, len(raw))
        words, counts = np.empty(room, np.int32), np.zeros(len(pieces), np.int64)
        memo = (self._table, self._hashes, self._known, self._chars, self._used)
        try:
            found = _find_all(np.frombuffer(raw, np.uint8), ends, continued, *memo, words, counts)
            if len(self) > self._learned:
                self._learn()
        except BaseException:
            self.clear()
            raise
        out = np.empty(len(raw) + room, self._dtype)  # a token has a byte at least, or is a word's space
        return out[: _write(words[:found], self._known, self._ids, out, counts)], counts

    def _learn(self) -> None:
        """Ask the tokenizer for the words that were entered last."""
        new, stop = slice(self._learned, len(self)), len(self)
        sizes, bare = self._known[new, _SIZE].copy(), (self._hashes[new] & np.uint64(1)).astype(bool)
        text = self._chars[self._known[self._learned, _TEXT] : self._used[1]]
        counts = np.zeros(len(sizes), np.int64)
        ask = self._each if self._line_break is None else self._together
        ids = ask(text, sizes, bare, counts)
        ends = self._ids_used + np.cumsum(counts)
        self._known[new, _IDS], self._known[new, _COUNT] = ends - counts, counts
        self._ids = _grown(self._ids, int(ends[-1]), self._ids_used)
        self._ids[self._ids_used : ends[-1]] = ids
        self._ids_used, self._learned = int(ends[-1]), stop

    def _together(self, text: Bytes, sizes: Numbers, bare: NDArray[np.bool_], counts: Numbers) -> Ids:
        lines, found = np.empty(len(text) + 2 * len(sizes), np.uint8), []
        at = 0
        for start in range(0, len(sizes), _TOGETHER):
            some = slice(start, start + _TOGETHER)
            size = int(sizes[some].sum())
            part = text[at : at + size]
            written = _lines(part, sizes[some], bare[some], lines)
            ids = np.array(self._encode(lines[:written].tobytes().decode()), self._dtype)
            kept = np.empty(len(ids), self._dtype)
            found.append(kept[: _divide(part, sizes[some], ids, self._line_break or 0, kept, counts[some])])
            at += size
        return np.concatenate(found)

    def _each(self, text: Bytes, sizes: Numbers, bare: NDArray[np.bool_], counts: Numbers) -> Ids:
        raw, found, at = text.tobytes(), [np.zeros(0, self._dtype)], 0
        for word, (size, first) in enumerate(zip(sizes.tolist(), bare.tolist(), strict=True)):
            content = raw[at : at + size].decode()
            found.append(np.array(self._encode(content if first else " " + content), self._dtype))
            counts[word], at = len(found[-1]), at + size
        return np.concatenate(found)

    def _make_room(self, words: int, chars: int) -> None:
        if len(self) > WORDS or self._used[1] > CHARS:
            self.clear()
        self._learned = len(self)
        self._hashes = _grown(self._hashes, self._learned + words, self._learned)
        self._known = _grown(self._known, self._learned + words, self._learned)
        self._chars = _grown(self._chars, int(self._used[1]) + chars, int(self._used[1]))
        if len(self._table) < 2 * len(self._hashes):
            self._table = np.zeros(1 << (2 * len(self._hashes)).bit_length(), np.int32)
            _enter_again(self._table, self._hashes[: self._learned])


def _grown(array: Any, size: int, used: int) -> Any:
    """Return an array of at least `size` rows that holds the first `used` of `array`."""
    if size <= len(array):
        return array
    more = np.empty((2 * size, *array.shape[1:]), array.dtype)
    more[:used] = array[:used]
    return more
