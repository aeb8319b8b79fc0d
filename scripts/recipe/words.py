"""Words of a text as 64-bit hashes: what near-duplicates and decontamination compare.

A word is a run of letters and digits in lower case. An apostrophe vanishes (don't = dont), all other punctuation,
symbols and emoji divide words, and a character of Chinese, Japanese or Korean is a word by itself. So neither
typography nor white space nor role markers hide a copy. Over UTF-8 bytes, compiled: a regex over characters is 50
times slower and was the bottleneck of every peer (docs/performance.md).
"""

import unicodedata

import numpy as np
from numpy.typing import NDArray

from scripts.recipe.compiled import compiled

Hashes = NDArray[np.uint64]

_PRIME = np.uint64(0x100000001B3)  # of FNV-1a
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))  # of MurmurHash3's finalizer
_SHIFT = np.uint64(33)


# What a character is; of ASCII, higher values are the letter itself.
_GAP, _NOTHING, _LETTER, _ALONE = 0, 1, 2, 3


def _ascii_table() -> NDArray[np.uint8]:
    """What each ASCII byte stands for: a letter or digit in lower case, a gap, or nothing."""
    table = np.zeros(128, dtype=np.uint8)
    for code in range(128):
        if chr(code).isalnum():
            table[code] = ord(chr(code).lower())
    table[ord("'")] = _NOTHING
    return table


_ASCII = _ascii_table()


@compiled
def mix(value: np.uint64) -> np.uint64:  # pragma: no cover - compiled
    """Return a hash in which every bit depends on every bit of `value` (a permutation of 64-bit integers)."""
    value = (value ^ (value >> _SHIFT)) * _MIX[0]
    value = (value ^ (value >> _SHIFT)) * _MIX[1]
    return value ^ (value >> _SHIFT)


@compiled
def _split(text: NDArray[np.uint8], key: np.uint64, found: Hashes, folded: bool) -> int:  # pragma: no cover - compiled
    """Write the hash of each word of UTF-8 `text` into `found` (room for half the bytes and two).

    Returns:
        The number of words, or -1 at a letter of a script that must be folded first, unless `folded` says it is.
    """
    count, i, end = 0, 0, len(text)
    word = key  # `key` means: no letter yet
    while i < end:
        byte = text[i]
        if byte < 0x80:
            # Without branches: the end of a word is what a processor predicts worst, and costs 20 cycles.
            letter = _ASCII[byte]
            found[count] = word
            count += (letter == _GAP) & (word != key)
            longer = (word ^ np.uint64(letter)) * _PRIME if letter != _NOTHING else word
            word = longer if letter != _GAP else key
            i += 1
            continue
        if not folded and _foldable(byte, text[i + 1]):
            return -1
        size, kind = _character(text, i)
        if word != key and kind in (_GAP, _ALONE):
            found[count] = word
            count += 1
            word = key
        if kind >= _LETTER:
            word = (word ^ np.uint64(byte)) * _PRIME
            for k in range(i + 1, i + size):
                # The capitals of Latin-1, C3 80 to C3 9E, stand 32 before their small letters.
                small = np.uint64(0x20) if byte == 0xC3 and text[k] < 0x9F else np.uint64(0)
                word = (word ^ (np.uint64(text[k]) + small)) * _PRIME
            if kind == _ALONE:
                found[count] = word
                count += 1
                word = key
        i += size
    found[count] = word
    count += word != key
    for k in range(count):
        found[k] = mix(found[k])
    return int(count)


@compiled
def _foldable(first: int, second: int) -> bool:  # pragma: no cover - compiled
    """Return whether case or composed forms could matter to a character, or its neighbours; not of those seen daily."""
    if first < 0xE2:
        return first >= 0xC4
    if first == 0xE2:
        return not (second == 0x80 or (second >= 0x94 and second <= 0x9E))  # typography; boxes, stars, hearts
    return first == 0xE3 or first == 0xEF or (first >= 0xF0 and second != 0x9F)  # 0x9F: emoji


@compiled
def _character(text: NDArray[np.uint8], i: int) -> tuple[int, int]:  # pragma: no cover - compiled
    """Return (bytes, kind) of the character beyond ASCII that begins at byte `i` of valid UTF-8."""
    first = text[i]
    if first >= 0xF0:
        return 4, _GAP  # emoji, and rare signs
    second = text[i + 1]
    if first < 0xE0:
        # Latin-1's signs are C2 80 to C2 BF; the signs of multiplication and division stand among its letters.
        return 2, _GAP if first == 0xC2 or (first == 0xC3 and (second == 0x97 or second == 0xB7)) else _LETTER
    third = text[i + 2]
    if first == 0xE2 and second == 0x80 and (third == 0x98 or third == 0x99 or (third >= 0x8B and third <= 0x8F)):
        return 3, _NOTHING  # curly apostrophes, zero-width characters
    if first == 0xE2 or first == 0xEF or (first == 0xE3 and second == 0x80):
        return 3, _GAP  # punctuation, arrows, symbols; presentation forms; ideographic punctuation
    return 3, _ALONE if first >= 0xE3 else _LETTER


class Words:
    """Hashes the words of texts under one 64-bit key; keeps its buffer between calls."""

    def __init__(self, key: int) -> None:
        self._key = np.uint64(key)
        self._found = np.empty(1 << 12, dtype=np.uint64)

    def of(self, text: str) -> Hashes:
        """Return the hash of each word `[words]`, valid until the next call."""
        raw = text.encode("utf-8", "replace")
        count = self._split(raw, False)
        if count < 0:
            count = self._split(unicodedata.normalize("NFC", text.lower()).encode("utf-8", "replace"), True)
        return self._found[:count]

    def _split(self, raw: bytes, folded: bool) -> int:
        if len(raw) // 2 + 2 > len(self._found):
            self._found = np.empty(len(raw), dtype=np.uint64)
        return int(_split(np.frombuffer(raw, dtype=np.uint8), self._key, self._found, folded))
