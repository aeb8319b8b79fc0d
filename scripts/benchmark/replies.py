"""Measures of generated replies: no judge, no model, only text. Words are runs of letters, digits and apostrophes."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[\w']+")
_SPEAKER = re.compile(r"^([A-Z][\w'’-]*(?: [A-Z][\w'’-]*){0,2}):", re.M)
_USER_LINE = re.compile(r"^(?:You|User|Human):", re.M | re.I)
_ARTEFACT = re.compile(
    r"\bas an ai\b|language model|\bopenai\b|\banthropic\b|<\|\w+\|>|</?s>|<(?:unk|pad|bos|eos|0x\w\w)>|"
    r"\{\{?\w+\}?\}|\[/?INST\]|���",
    re.I,
)
_PHRASE, _TIMES = 8, 4
# 20 times, since a line of 10 dashes parts two scenes and laughter has no spaces.
_LETTERS = re.compile(r"(\S.{0,7}?)\1{19}", re.S)
Metrics = dict[str, tuple[float, float | None]]


@dataclass(frozen=True)
class Reply:
    """One generated turn."""

    text: str
    """Without what begins the user's turn and all after it, and without what the format puts behind a turn."""
    end: str
    """`eos`, `user` (it wrote what begins a user's turn) or `length` (it was cut off)."""


@dataclass(frozen=True)
class Dialogue:
    """The replies of one conversation, in order, each to the true user turn after its own earlier replies."""

    context: str
    """All text of the conversation that was given, without the replies."""
    replies: tuple[Reply, ...]


def words(text: str) -> list[str]:
    """Return the lower-case words of a text."""
    return _WORD.findall(text.lower())


def speakers(text: str) -> set[str]:
    """Return the names that begin a line as `Name:`."""
    return set(_SPEAKER.findall(text))


def loops(text: str) -> bool:
    """Whether a phrase of one to eight words stands four or more times in a row, or as many letters twenty times.

    By counting: a pattern for phrases took exponential time for a row of 30 apostrophes.
    """
    found = words(text)
    for size in range(1, _PHRASE + 1):
        run = 0
        for now, later in zip(found, found[size:], strict=False):
            run = run + 1 if now == later else 0
            if run == (_TIMES - 1) * size:
                return True
    return _LETTERS.search(text) is not None


def distinct(texts: Sequence[str], n: int) -> float:
    """Return distinct n-grams over all n-grams of all texts; 0 without any."""
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def measure(dialogues: Sequence[Dialogue]) -> Metrics:
    """Return {measure: (value, standard error over conversations)} of all replies.

    Args:
        dialogues: at least one, each with at least one reply. A reply has leaked a name if it lets somebody speak
            who speaks in another conversation's given text, and isn't named in its own.
    """
    known_names = {name for dialogue in dialogues for name in speakers(dialogue.context)}
    every = [reply for dialogue in dialogues for reply in dialogue.replies]
    texts = [reply.text for reply in every]
    shares: dict[str, Callable[[Dialogue, Reply], bool]] = {
        "user_turn": lambda _, r: r.end == "user" or _USER_LINE.search(r.text) is not None,
        "fails_to_stop": lambda _, r: r.end == "length",
        "empty": lambda _, r: not words(r.text),
        "loops": lambda _, r: loops(r.text),
        "artefacts": lambda _, r: _ARTEFACT.search(r.text) is not None,
        "leaked_names": lambda d, r: any(not _named(n, d.context) for n in speakers(r.text) & known_names),
    }
    found = {
        name: mean_and_error([sum(test(d, r) for r in d.replies) / len(d.replies) for d in dialogues])
        for name, test in shares.items()
    }
    for n in (1, 2, 3):
        found[f"distinct_{n}"] = distinct(texts, n), None
    repeated = [share for share in (_repeated(d.replies) for d in dialogues) if share is not None]
    if repeated:
        found["repeated_4grams"] = mean_and_error(repeated)
    for turn in range(max(len(d.replies) for d in dialogues)):
        lengths = [float(len(words(d.replies[turn].text))) for d in dialogues if turn < len(d.replies)]
        found[f"words/turn_{turn + 1}"] = mean_and_error(lengths)
    return found


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(text)
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def _named(name: str, text: str) -> bool:
    """Whether a name stands in a text as a word of its own."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _repeated(replies: Sequence[Reply]) -> float | None:
    """Return the share of 4-grams that an earlier reply of the conversation held already; None if none could."""
    seen: set[tuple[str, ...]] = set()
    again = total = 0
    for reply in replies:
        grams = _grams(reply.text, 4)
        again += sum(gram in seen for gram in grams) if seen else 0
        total += len(grams) if seen else 0
        seen.update(grams)
    return again / total if total else None


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of at least one value and its standard error, which a single value lacks.

    fsum: Python's own sum, which lm-eval takes, rounds other last digits from 3.12 on than before.
    """
    mean, count = math.fsum(values) / len(values), len(values)
    if count < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1) / count)
