"""Measures of generated replies: no judge, no model, only text. Words are runs of letters, digits and apostrophes."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

USER_MARKER = "<|user|>"
_WORD = re.compile(r"[\w']+")
_SPEAKER = re.compile(r"^([A-Z][\w'’-]*(?: [A-Z][\w'’-]*){0,2}):", re.M)
_USER_LINE = re.compile(r"^(?:You|User|Human):", re.M | re.I)
_ARTEFACT = re.compile(
    r"\bas an ai\b|language model|\bopenai\b|\banthropic\b|<\|?\w+\|?>|</s>|\{\{?\w+\}?\}|\[/?INST\]|���", re.I
)
_LOOP = re.compile(r"(\b[\w']+(?:\W+[\w']+){0,7}?)(?:\W+\1\b){3}", re.I)
Metrics = dict[str, tuple[float, float | None]]


@dataclass(frozen=True)
class Reply:
    """One generated turn."""

    text: str
    """Up to the user marker, if it wrote one."""
    end: str
    """`eos`, `user` (it wrote the user marker) or `length` (it was cut off)."""


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
    """Whether a phrase of one to eight words stands four or more times in a row."""
    return _LOOP.search(text) is not None


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
        "leaked_names": lambda d, r: any(n not in d.context for n in speakers(r.text) & known_names),
    }
    found = {
        name: mean_and_error([sum(test(d, r) for r in d.replies) / len(d.replies) for d in dialogues])
        for name, test in shares.items()
    }
    for n in (1, 2, 3):
        found[f"distinct_{n}"] = distinct(texts, n), None
    found["repeated_4grams"] = mean_and_error([_repeated(d.replies) for d in dialogues])
    for turn in range(max(len(d.replies) for d in dialogues)):
        lengths = [float(len(words(d.replies[turn].text))) for d in dialogues if turn < len(d.replies)]
        found[f"words/turn_{turn + 1}"] = mean_and_error(lengths)
    return found


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(text)
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def _repeated(replies: Sequence[Reply]) -> float:
    """Return the share of 4-grams that an earlier reply of the conversation held already."""
    seen: set[tuple[str, ...]] = set()
    again = total = 0
    for reply in replies:
        grams = _grams(reply.text, 4)
        again += sum(gram in seen for gram in grams) if seen else 0
        total += len(grams) if seen else 0
        seen.update(grams)
    return again / total if total else 0.0


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of at least one value and its standard error, which a single value lacks.

    fsum: Python's own sum, which lm-eval takes, rounds other last digits from 3.12 on than before.
    """
    mean, count = math.fsum(values) / len(values), len(values)
    if count < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1) / count)
