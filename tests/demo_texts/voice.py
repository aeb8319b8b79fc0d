"""Draw texts from a grammar by keyed hash; what the five writers of demo sources share."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from scripts.recipe.base import keyed_hash

TEXTS = Path(__file__).resolve().parent
LITERALS = ("</s>", "<|user|>", "<s>", "<|model|>", "<unk>", "<|system|>")
"""Control tokens and role markers that a text may spell out, one row each."""

Planted = Counter[str]
"""How many rows carry each case; rows that several cases hit count for each."""
Pair = tuple[str, str]
"""An instruction and its answer."""
T = TypeVar("T")
_SLOT = re.compile(r"\$([A-Za-z]\w*)")


class Voice:
    """Draws from one grammar; the n-th draw of a row depends on the source, the row and n alone."""

    def __init__(self, source: str, row: object, **bound: str) -> None:
        self.grammar = grammar(source)
        self.bound = bound
        self._key = ("demo-sources", source, row)
        self._draws = 0

    def number(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        self._draws += 1
        return low + keyed_hash(*self._key, self._draws) % (high - low + 1)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self.number(0, len(options) - 1)]

    def pick_all(self, options: Sequence[T], count: int) -> list[T]:
        """Return `count` different options in random order."""
        left = list(options)
        return [left.pop(self.number(0, len(left) - 1)) for _ in range(count)]

    def bind(self, *words: str) -> None:
        """Choose these words once, for the whole row."""
        for word in words:
            self.bound[word] = self.say(f"${word}")

    def say(self, text: str) -> str:
        """Return `text` with each `$word` replaced by what is bound, or by a line of the grammar."""

        def fill(match: re.Match[str]) -> str:
            word = match[1].lower()
            found = self.bound[word] if word in self.bound else self.say(self.pick(self.grammar[word]))
            return found[:1].upper() + found[1:] if match[1][0].isupper() else found

        return _SLOT.sub(fill, text)


@cache
def grammar(source: str) -> Any:
    """Return the grammar of one source."""
    return yaml.safe_load((TEXTS / f"{source}.yaml").read_text(encoding="utf-8"))


def spread(source: str, rows: list[T]) -> list[T]:
    """Return the rows in an order that mixes planted ones among the rest."""
    order = sorted(range(len(rows)), key=lambda i: keyed_hash("demo-sources", "order", source, i))
    return [rows[i] for i in order]


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write JSON lines, UTF-8 with LF whatever the platform."""
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def dumps(value: object) -> str:
    """Return compact JSON that keeps letters as they are."""
    return json.dumps(value, ensure_ascii=False)
