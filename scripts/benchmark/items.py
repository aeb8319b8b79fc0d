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

    def requests(self) -> list[tuple[str, str]]:
        """Return (context, continuation) of every choice."""
        return [(self.context, self.delimiter + choice) for choice in self.choices]


def make_item(where: str, context: str, choices: Sequence[str], labels: Sequence[float], delimiter: str = " ") -> Item:
    """Return an item after checking it; `where` names file and row in messages.

    Raises:
        StageError: no context, fewer than two choices, an empty or repeated choice, a label outside [0, 1],
            no choice with a positive label, or text that UTF-8 can't hold.
    """

    def bad(text: str) -> StageError:
        return StageError(f"{where}: {text}; mend the row, or pin the published file in the suite's fetch")

    if not context:
        raise bad("the rendered prompt is empty")
    if len(choices) < 2 or len(set(choices)) != len(choices) or not all(choices):
        raise bad(f"found choices {list(choices)!r:.200}; needs at least two, all different, none empty")
    if any(not 0 <= label <= 1 for label in labels) or max(labels) <= 0:
        raise bad(f"found labels {list(labels)!r:.200}; each must lie in [0, 1] and one must be positive")
    try:
        "".join((context, *choices)).encode()
    except UnicodeEncodeError as error:
        raise bad(f"holds a lone surrogate, which is no text ({error.reason})") from None
    return Item(context, tuple(choices), labels.index(max(labels)), tuple(map(float, labels)), delimiter)


def prompts_sha256(records: Sequence[object]) -> str:
    """Return the SHA-256 over one canonical JSON line for each record, in order: equal digests, equal prompts."""
    return sha256_bytes("".join(canonical_json(record) + "\n" for record in records).encode())


def items_sha256(items: Sequence[Item]) -> str:
    """Return `prompts_sha256` of items."""
    return prompts_sha256([asdict(item) for item in items])


def chance(items: Sequence[Item]) -> float:
    """Return the expected score of a uniformly random pick: the mean over items of the mean label.

    With one right choice an item this is the mean of 1/choices; for mc2 it is the value of equal probabilities.
    """
    return fsum(fsum(item.labels) / len(item.labels) for item in items) / len(items)
