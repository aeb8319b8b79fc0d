"""Generator of the demo's benchmark tasks: `python -m tests.demo_benchmarks` rewrites config/demo-sources/benchmark/.

Sentences are our own. Every choice is a keyed hash, so each run of any Python writes the same bytes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from scripts.artifact.digest import sha256_file
from scripts.recipe.base import keyed_hash

FOLDER = Path(__file__).resolve().parents[1] / "config" / "demo-sources" / "benchmark"
ITEMS = 40
SEED = 20230902
T = TypeVar("T")
Row = dict[str, object]

_NAMES = ["Mira", "Tobin", "Elsa", "Rowan", "Pip", "Hana", "Oskar", "Lena"]
_PLACES = {
    "the harbour": ["a red boat", "a coil of rope", "a silver fish", "an old anchor"],
    "the library": ["a dusty map", "a tall ladder", "a blue book", "a brass lamp"],
    "the garden": ["a clay pot", "a green gate", "a basket of pears", "a sleepy hedgehog"],
    "the mountain": ["a warm hut", "a stone bridge", "a patch of snow", "a wooden sign"],
    "the kitchen": ["a copper pan", "a loaf of bread", "a jar of honey", "a pot of soup"],
}
_ACTIONS = ["looked at", "pointed to", "sat down beside", "smiled at", "asked about"]
_SENTENCES = [
    "{name} walked slowly to {place} and found {thing}.",
    "Near {place} there was {thing} that {name} liked.",
    "{name} told a friend about {thing} at {place}.",
    "In the morning {name} saw {thing} close to {place}.",
]


def pick(options: Sequence[T], *key: object) -> T:
    """Return the option that `key` decides."""
    return options[keyed_hash(SEED, *key) % len(options)]


def shuffled(options: Sequence[T], *key: object) -> list[T]:
    """Return the options in the order that `key` decides."""
    order = sorted(range(len(options)), key=lambda i: (keyed_hash(SEED, *key, i), i))
    return [options[i] for i in order]


def item(question: str, right: str, wrong: Sequence[str], *key: object) -> Row:
    """Return a row with the choices in an order decided by `key`."""
    choices = shuffled([right, *wrong], "choices", *key)
    return {"question": question, "choices": choices, "answer": choices.index(right)}


def _scene(*key: object) -> tuple[str, str, str]:
    place = pick(list(_PLACES), "place", *key)
    return pick(_NAMES, "name", *key), place, pick(_PLACES[place], "thing", *key)


def arithmetic(number: int, attempt: int) -> Row:
    """Sums of one-digit numbers; a model of the demo's size is expected at chance."""
    key = ("arithmetic", number, attempt)
    first, second = keyed_hash(SEED, *key, "first") % 9 + 1, keyed_hash(SEED, *key, "second") % 9 + 1
    offsets = shuffled([-2, -1, 1, 2], *key, "offsets")[:3]
    wrong = [str(first + second + offset) for offset in offsets]
    return item(f"What is {first} plus {second}?", str(first + second), wrong, *key)


def word_order(number: int, attempt: int) -> Row:
    """A sentence against two shufflings of its own words: same words, so length can't decide."""
    key = ("word_order", number, attempt)
    name, place, thing = _scene(*key)
    sentence = pick(_SENTENCES, "sentence", *key).format(name=name, place=place, thing=thing)
    words = sentence.removesuffix(".").split()
    wrong: list[str] = []
    turn = 0
    while len(wrong) < 2:
        candidate = " ".join(shuffled(words, *key, "words", turn)) + "."
        turn += 1
        if candidate != sentence and candidate not in wrong:
            wrong.append(candidate)
    return item(f"Write a sentence about {name} and {place}.", sentence, wrong, *key)


def story_continuation(number: int, attempt: int) -> Row:
    """The next sentence of a small story, against sentences about other people and other things."""
    key = ("story_continuation", number, attempt)
    name, place, thing = _scene(*key)
    others = shuffled([n for n in _NAMES if n != name], *key, "others")
    elsewhere = shuffled([t for p, things in _PLACES.items() if p != place for t in things], *key, "elsewhere")
    action = pick(_ACTIONS, "action", *key)
    question = f"{name} went to {place}. There {name} saw {thing}. What happened next?"
    wrong = [f"{other} {action} {what}." for other, what in zip(others[:3], elsewhere[:3], strict=True)]
    return item(question, f"{name} {action} {thing}.", wrong, *key)


TASKS = {"arithmetic": arithmetic, "word_order": word_order, "story_continuation": story_continuation}


def rows(task: str) -> list[Row]:
    """Return the items of one task, all with different questions."""
    found: dict[str, Row] = {}
    for number in range(ITEMS):
        attempt = 0
        while len(found) <= number:
            row = TASKS[task](number, attempt)
            found.setdefault(str(row["question"]), row)
            attempt += 1
    return list(found.values())


def text(task: str) -> str:
    """Return the task file's content."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(task))


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for task_name in TASKS:
        path = FOLDER / f"{task_name}.jsonl"
        path.write_text(text(task_name), encoding="utf-8")
        print(f"    {path.name}: {{sha256: {sha256_file(path)}, bytes: {path.stat().st_size}}}")
