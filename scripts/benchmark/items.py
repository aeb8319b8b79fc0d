"""Frozen benchmark items: exactly what will be scored, before any model is loaded."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum

from scripts.artifact.digest import sha256_bytes
from scripts.artifact.stage import StageError
from scripts.recipe.base import canonical_json


@dataclass(frozen=True)
class Item:
    """One question. Request c is the context followed by `delimiter + choices[c]`, of which only the latter counts."""

    context: str
    choices: tuple[str, ...]
    gold: int
    """Index of the (first) best choice."""
    labels: tuple[float, ...]
    """Score of each choice, 0 to 1."""
    delimiter: str = " "
    """Scored with the choice, but not counted in the length that `acc_norm` divides by."""
    contexts: tuple[str, ...] = ()
    """Where the choices end the context (WinoGrande): one context a choice, in place of `context`."""
    continuation: str = ""
    """With `contexts`: the text that is scored, the same after each."""

    def requests(self) -> list[tuple[str, str]]:
        """Return (context, continuation) of every choice."""
        if self.contexts:
            return [(context, self.delimiter + self.continuation) for context in self.contexts]
        return [(self.context, self.delimiter + choice) for choice in self.choices]

    def record(self) -> dict[str, object]:
        """Return what the digest of prompts covers: all fields, those of `contexts` only where they are used."""
        fields = asdict(self)
        return fields if self.contexts else {k: v for k, v in fields.items() if k not in {"contexts", "continuation"}}


def make_item(
    where: str,
    context: str,
    choices: Sequence[str],
    labels: Sequence[float],
    delimiter: str = " ",
    *,
    contexts: Sequence[str] = (),
    continuation: str = "",
    distinct: bool = True,
) -> Item:
    """Return an item after checking it; `where` names file and row in messages.

    Args:
        where: file and row.
        context: the prompt.
        choices: texts to choose from.
        labels: score of each choice.
        delimiter: text between context and choice.
        contexts: one context for each choice, in place of `context`.
        continuation: the scored text after each of `contexts`.
        distinct: refuse two equal choices; published sets hold some, which the protocols score as they are.

    Raises:
        StageError: no context, fewer than two choices, an empty or repeated choice, a label outside [0, 1],
            no choice with a positive label, or text that UTF-8 can't hold.
    """

    def bad(text: str) -> StageError:
        return StageError(f"{where}: {text}; mend the row, or pin the published file in the suite's fetch")

    if not (all(contexts) and continuation if contexts else context):
        raise bad("the rendered prompt is empty")
    if len(choices) < 2 or (distinct and len(set(choices)) != len(choices)) or not all(choices):
        raise bad(f"found choices {list(choices)!r:.200}; needs at least two, all different, none empty")
    if any(not 0 <= label <= 1 for label in labels) or max(labels) <= 0:
        raise bad(f"found labels {list(labels)!r:.200}; each must lie in [0, 1] and one must be positive")
    try:
        "".join((context, *choices, *contexts, continuation)).encode()
    except UnicodeEncodeError as error:
        raise bad(f"holds a lone surrogate, which is no text ({error.reason})") from None
    gold, scores = labels.index(max(labels)), tuple(map(float, labels))
    return Item(context, tuple(choices), gold, scores, delimiter, tuple(contexts), continuation)


def prompts_sha256(records: Sequence[object]) -> str:
    """Return the SHA-256 over one canonical JSON line for each record, in order: equal digests, equal prompts."""
    return sha256_bytes("".join(canonical_json(record) + "\n" for record in records).encode())


def items_sha256(items: Sequence[Item]) -> str:
    """Return `prompts_sha256` of items."""
    return prompts_sha256([item.record() for item in items])


def chance(items: Sequence[Item]) -> float:
    """Return the expected score of a uniformly random pick: the mean over items of the mean label.

    With one right choice an item this is the mean of 1/choices; for mc2 it is the value of equal probabilities.
    """
    return fsum(fsum(item.labels) / len(item.labels) for item in items) / len(items)


def chance_variance(items: Sequence[Item]) -> float:
    """Return the variance of a uniformly random pick's score, mean over items; for right-or-wrong items c(1 - c)."""

    def variance(labels: Sequence[float]) -> float:
        mean = fsum(labels) / len(labels)
        return fsum((label - mean) ** 2 for label in labels) / len(labels)

    return fsum(variance(item.labels) for item in items) / len(items)
