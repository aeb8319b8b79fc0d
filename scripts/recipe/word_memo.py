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
_PRIME = np.uint64(0x100000001B3)  # of FNV-1a
# Columns of what is known of a word: hash (its lowest bit: no space before it); place << 32 | bytes of its text;
# place << 32 | number of its ids; its first 8 bytes. One cache line says all of most words.
_HASH, _TEXT, _IDS, _HEAD = 0, 1, 2, 3
_LOW = np.int64((1 << 32) - 1)


@compiled
def _find(
    raw: Bytes, start: int, end: int, bare: bool, table: Table, known: Numbers, chars: Bytes, used: Numbers
) -> int:  # pragma: no cover - compiled
    """Return the number of a word, which is entered without ids if it is new; `used`: words, chars."""
    size = end - start
    head = np.uint64(0)
    for i in range(min(size, 8)):
        head |= np.uint64(raw[start + i]) << np.uint64(8 * i)
    found = mix(head ^ np.uint64(size))
    for i in range(start + 8, end):
        found = (found ^ np.uint64(raw[i])) * _PRIME
    if size > 8:
        found = mix(found)
    key, begin = np.int64(found & ~np.uint64(1) | np.uint64(bare)), np.int64(head)
    last = len(table) - 1
    slot = np.int64(found >> np.uint64(1)) & last
    while table[slot]:
        index = table[slot] - 1
        if known[index, _HASH] == key and known[index, _HEAD] == begin and (known[index, _TEXT] & _LOW) == size:
            at, same = known[index, _TEXT] >> 32, True
            for i in range(8, size):
                same &= chars[at + i] == raw[start + i]
            if same:
                return int(index)
        slot = (slot + 1) & last
    index, at = used[0], used[1]
    table[slot] = index + 1
    known[index, _HASH], known[index, _HEAD] = key, begin
    known[index, _TEXT], known[index, _IDS] = at << 32 | size, 0
    for i in range(size):
        chars[at + i] = raw[start + i]
    used[0], used[1] = index + 1, at + size
    return int(index)


@compiled
def _find_all(
    raw: Bytes, ends: Numbers, continued: NDArray[np.bool_], table: Table, known: Numbers, chars: Bytes,
    used: Numbers, words: Table, counts: Numbers, done: Numbers,
) -> bool:  # pragma: no cover - compiled  # fmt: skip
    """Write the numbers of all words to `words`, and how many each piece has to `counts`.

    `ends`: where each piece of `raw` ends. `done`: pieces and words.

    Returns:
        False if the table becomes too full: it is to be called again with a larger one.
    """
    begin = ends[done[0] - 1] if done[0] else 0
    while done[0] < len(ends):
        piece, written = done[0], done[1]
        end, position = ends[piece], begin
        if 2 * (used[0] + end - begin + 1) > len(table):
            return False
        bare = continued[piece] and begin < end and raw[begin] != _SPACE
        if continued[piece] and not bare:
            position += 1  # the piece begins with a space, which is its first word's
        more = begin < end
        while more:
            stop = position
            if not bare:
                while stop < end and raw[stop] == _SPACE:
                    stop += 1
            while stop < end and raw[stop] != _SPACE:
                stop += 1
            words[written] = _find(raw, position, stop, bare, table, known, chars, used)
            written += 1
            bare, more, position = False, stop < end, stop + 1
        counts[piece] = written - done[1]
        done[0], done[1] = piece + 1, written
        begin = end
    return True


@compiled
def _write(words: Table, known: Numbers, ids: Ids, out: Ids, counts: Numbers) -> int:  # pragma: no cover - compiled
    """Write the ids of words to `out`; each piece's count of words becomes that of its ids; return their number."""
    written, word = 0, 0
    for piece in range(len(counts)):
        before = written
        for _ in range(counts[piece]):
            place = known[words[word], _IDS]
            at, count = place >> 32, place & _LOW
            for i in range(count):
                out[written + i] = ids[at + i]
            written += count
            word += 1
        counts[piece] = written - before
    return written


@compiled
def _enter_again(table: Table, known: Numbers, words: int) -> None:  # pragma: no cover - compiled
    """Fill an empty `table` from the hashes of all words."""
    last = len(table) - 1
    for index in range(words):
        slot = np.int64(np.uint64(known[index, _HASH]) >> np.uint64(1)) & last
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
        self._known = np.empty((0, 4), np.int64)
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
        text, done = np.frombuffer(raw, np.uint8), np.zeros(2, np.int64)
        try:
            while not _find_all(
                text, ends, continued, self._table, self._known, self._chars, self._used, words, counts, done
            ):
                self._enlarge_table(len(pieces[done[0]]))
            if len(self) > self._learned:
                self._learn()
        except BaseException:
            self.clear()
            raise
        out = np.empty(len(raw) + room, self._dtype)  # a token has a byte at least, or is a word's space
        return out[: _write(words[: done[1]], self._known, self._ids, out, counts)], counts

    def _learn(self) -> None:
        """Ask the tokenizer for the words that were entered last."""
        new = self._known[self._learned : len(self)]
        sizes, bare = new[:, _TEXT] & _LOW, (new[:, _HASH] & 1).astype(bool)
        text = self._chars[new[0, _TEXT] >> 32 : self._used[1]]
        counts = np.zeros(len(sizes), np.int64)
        ids = (self._each if self._line_break is None else self._together)(text, sizes, bare, counts)
        ends = self._ids_used + np.cumsum(counts)
        new[:, _IDS] = (ends - counts) << 32 | counts
        self._ids = _grown(self._ids, int(ends[-1]), self._ids_used)
        self._ids[self._ids_used : ends[-1]] = ids
        self._ids_used, self._learned = int(ends[-1]), len(self)

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
        self._known = _grown(self._known, self._learned + words, self._learned)
        self._chars = _grown(self._chars, int(self._used[1]) + chars, int(self._used[1]))

    def _enlarge_table(self, more: int) -> None:
        """Make room for so many words; no more than are there, since the table should lie in the L2 cache."""
        self._table = np.zeros(1 << (2 * (len(self) + more + 1)).bit_length(), np.int32)
        _enter_again(self._table, self._known, len(self))


def _grown(array: Any, size: int, used: int) -> Any:
    """Return an array of at least `size` rows that holds the first `used` of `array`."""
    if size <= len(array):
        return array
    more = np.empty((2 * size, *array.shape[1:]), array.dtype)
    more[:used] = array[:used]
    return more
