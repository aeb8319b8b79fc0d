"""Episode ids, and digests that find equal conversations and prefixes."""

import hashlib
from collections.abc import Sequence

from scripts.artifact.stage import StageError
from scripts.clean.episode import Turn


class Ids:
    """Gives each row of a source its id: `<source>-<16 hex of sha256(source, key, occurrence)>`.

    Rows that share a key (a native id used twice, identical rows) are told apart by their order in the file.
    Holds one integer of 8 bytes a row (about 100 MB for a million, with the set).
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._given: set[int] = set()

    def next(self, key: str) -> str:
        """Return the id of the next row with this key."""
        for occurrence in range(len(self._given) + 1):
            text = f"{self._source}\x1f{key}\x1f{occurrence}" if occurrence else f"{self._source}\x1f{key}"
            number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
            if number not in self._given:
                self._given.add(number)
                return f"{self._source}-{number:016x}"
        raise StageError(f"{self._source}: no free id for key {key[:80]!r}")


def digests(system: str, turns: Sequence[Turn]) -> tuple[list[bytes], bytes]:
    """Return (digests of the proper prefixes that end in a model turn, digest of all), 16 bytes each."""
    running = hashlib.blake2b(digest_size=16)
    running.update(f"{len(system)}:{system}".encode())
    prefixes = []
    for turn in turns:
        running.update(f"{turn.role}:{len(turn.text)}:{turn.text}".encode())
        if turn.role == "model":
            prefixes.append(running.digest())
    whole = running.digest()
    return prefixes[:-1], whole
