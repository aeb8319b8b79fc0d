"""Word-list checks: the minors gate, which nothing switches off, and the adult label.

Source: data reference, section 5.3 (a) and (b); Thorn, "Safety by Design" (April 2024). Word lists miss much;
they are the floor that every source stands on, not a proof.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, StringConstraints

from scripts.recipe.base import Strict

LEXICONS = Path(__file__).with_name("lexicons.yaml")

Word = Annotated[str, StringConstraints(pattern=r"^[a-z]+$")]
Words = Annotated[list[Word], Field(min_length=1)]

_FORMAT_CHARS = re.compile("[\u00ad\u180e\u200b-\u200f\u2060-\u2064\ufeff]")
# One bytes.translate folds case, turns everything but letters into spaces, and drops UTF-8 continuation bytes
# and combining marks (0xCC, 0xCD): several times the speed of a regex over characters.
_FOLD = bytes(b + 32 if 65 <= b <= 90 else b if 97 <= b <= 122 else 32 for b in range(256))
_DROP = bytes([*range(0x80, 0xC0), 0xCC, 0xCD])

_DIGITS = r"(?<![\w.$])(?:0?[1-9]|1[0-7])(?![\d.,]?\d)"
_SPELLED = r"\b(?:thirteen|fourteen|fifteen|sixteen|seventeen|twelve|eleven|ten|nine|eight|seven|six|five|four)\b"
_NUMBER = rf"(?:{_DIGITS}|{_SPELLED})"
_UNITS = r"(?!\s*(?:%|percent|feet|foot|miles?|minutes?|hours?|days?|weeks?|months?|times?|inch|o'clock))"
_STATED_AGE = re.compile(
    # sixteen-year-old, 16 years of age, 16yo
    rf"{_NUMBER}[\s-]*(?:years?|yrs?|y)?[\s-]*(?:old|of\s+age|y[./]?o)\b"
    # Age: 16, age("16"), aged sixteen
    rf"|\bage[ds]?\b[\s\"'(:=*_-]*(?:is|was|of|at)?[\s\"'(:=*_-]*{_NUMBER}"
    # turned 16, I'm 16, she is sixteen; just 16.
    rf"|\b(?:turn(?:ed|s|ing)?|i'?m|i\s+am|(?:she|he|they|you)(?:'s|'re|\s+(?:is|are|was|were)))\s+{_NUMBER}{_UNITS}"
    rf"|\b(?:only|just|barely)\s+{_NUMBER}(?=\s*(?:[.,;!?\"')]|$))"
    # 10th grade, 16/f, f16
    r"|\b(?:[1-9]|1[0-7])(?:st|nd|rd|th)\s+(?:grade|birthday)\b|\b1[0-7]\s?/?\s?[mf]\b|\b[mf]\s?/?\s?1[0-7]\b",
    re.IGNORECASE,
)


class LexiconFile(Strict):
    """The four lists of `lexicons.yaml`."""

    sexual: Words
    minor: Words
    adult_strong: Words
    adult_weak: Words


@dataclass(frozen=True)
class Lexicon:
    """Lists as the bytes that folded text is split into."""

    sexual: frozenset[bytes]
    minor: frozenset[bytes]
    adult_strong: frozenset[bytes]
    adult_weak: frozenset[bytes]

    @classmethod
    def of(
        cls, *, sexual: Iterable[str], minor: Iterable[str], strong: Iterable[str], weak: Iterable[str]
    ) -> "Lexicon":
        """Return a lexicon of lower-case words made of the letters a-z."""
        return cls(*(frozenset(word.encode() for word in words) for words in (sexual, minor, strong, weak)))

    def gated(self, text: str, words: Sequence[bytes]) -> bool:
        """Return whether a conversation must be dropped whole.

        Args:
            text: all of it: persona, turns, tags, parts that are cut later.
            words: `folded_words(text)`.

        Returns:
            True if any sexual cue meets any cue of age, school or kinship, or a stated age below 18.
        """
        if self.sexual.isdisjoint(words):
            return False
        return not self.minor.isdisjoint(words) or _STATED_AGE.search(_plain(text)) is not None

    def adult(self, words: Sequence[bytes]) -> bool:
        """Return whether the folded words make an episode adult: one strong word or two different weak ones."""
        return not self.adult_strong.isdisjoint(words) or len(self.adult_weak.intersection(words)) >= 2


def load_lexicon(path: Path = LEXICONS) -> Lexicon:
    """Return the lists beside the code, which are part of the stage's code digest."""
    lists = LexiconFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    return Lexicon.of(sexual=lists.sexual, minor=lists.minor, strong=lists.adult_strong, weak=lists.adult_weak)


def folded_words(text: str) -> list[bytes]:
    """Return the words of `text` in lower case without accents; only a-z counts as a letter."""
    return _plain(text).encode("utf-8", "replace").translate(_FOLD, _DROP).split()


def _plain(text: str) -> str:
    """Undo what hides a word from a reader's eye but not from a list: wide letters, accents, invisible characters."""
    return text if text.isascii() else unicodedata.normalize("NFKD", _FORMAT_CHARS.sub("", text)).replace("\u2019", "'")
