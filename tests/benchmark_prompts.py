"""Few-shot prompts in the shapes of the known benchmarks, for the scorer's tests and its bench.

ARC, MMLU and AGIEval come from the real files below `ATELIER_REAL_DATA`; HellaSwag's shape is filled with our own text.
"""

import csv
import json
import os
from pathlib import Path

from scripts.benchmark.formats import agieval
from scripts.recipe.base import keyed_hash

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("ATELIER_REAL_DATA", ROOT.parent / "shared" / "data"))
Prompts = list[list[tuple[str, str]]]
"""For each item its requests (context, continuation)."""


def shots(purpose: str, item: int, count: int, among: int) -> list[int]:
    """Return `count` numbers below `among`, other than `item`, drawn for this item."""
    return sorted((n for n in range(among) if n != item), key=lambda n: keyed_hash(purpose, item, n))[:count]


def arc(items: int) -> Prompts:
    """ARC-Challenge, 25 random shots an item (from the test split itself: the train split isn't at hand)."""
    lines = (REAL / "benchmarks" / "arc_challenge.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    asked = [f"{row['query']}\nAnswer:" for row in rows]
    solved = [f"{text} {row['choices'][row['gold']]}" for text, row in zip(asked, rows, strict=True)]
    return [
        [("\n\n".join([*(solved[n] for n in shots("arc", i, 25, len(rows))), asked[i]]), f" {choice}")
         for choice in rows[i]["choices"]]
        for i in range(items)
    ]  # fmt: skip


def sat_en(items: int) -> Prompts:
    """AGIEval's sat-en, zero-shot: long passages, about ten questions each."""
    return [item.requests() for item in agieval.render(REAL / "benchmarks" / "agieval" / "sat-en.jsonl")[:items]]


def mmlu(items: int, subject: str = "business_ethics") -> Prompts:
    """One subject of MMLU, the five dev questions before each, letters as choices."""
    folder = REAL / "benchmarks" / "mmlu"
    tables = []
    for split in ("dev", "test"):
        with (folder / split / f"{subject}_{split}.csv").open(encoding="utf-8", newline="") as file:
            tables.append([_mmlu_question(row) for row in csv.DictReader(file)])
    head = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    head += "\n\n".join(f"{text} {letter}" for text, letter in tables[0][:5])
    return [[(f"{head}\n\n{text}", f" {letter}") for letter in "ABCD"] for text, _ in tables[1][:items]]


def _mmlu_question(row: dict[str, str]) -> tuple[str, str]:
    options = [f"{letter}. {row[f'choice{n}']}" for n, letter in enumerate("ABCD")]
    return "\n".join([row["question"], *options, "Answer:"]), "ABCD"[int(row["answer"])]


_WHO = [
    "A baker",
    "The old sailor",
    "Two girls",
    "A mason",
    "My neighbour",
    "The postman",
    "A tall man",
    "The gardener",
]
_DOES = [
    "carries a basket of pears along the wall and",
    "ties the boat to a post near the mill and",
    "folds the blue cloth twice and",
    "opens the shutters of the little shop and",
    "pours warm water over the stones and",
    "leans a ladder against the barn and",
]
_THEN = [
    "sets it down beside the door before the rain begins to fall again",
    "counts everything once more, since one of them was missing yesterday",
    "calls to the others on the far side of the yard, who wave back",
    "turns round slowly and shows the camera what has been done so far",
    "wipes both hands on a towel and starts over from the very first step",
    "waits until the bell has rung, then walks off without a word",
]


def hellaswag_shaped(items: int) -> Prompts:
    """Ten random shots of about 55 words, four endings of about 15 words: HellaSwag's lengths, our own text."""

    def pick(words: list[str], *key: object) -> str:
        return words[keyed_hash("hellaswag", *key) % len(words)]

    def story(n: int) -> str:
        parts = [f"{pick(_WHO, n, k)} {pick(_DOES, n, k)} {pick(_THEN, n, k)}." for k in range(2)]
        return f"Working outdoors: {' '.join(parts)} {pick(_WHO, n, 2)}"

    def ending(n: int, choice: int) -> str:
        return f" {pick(_DOES, n, 'end', choice)} {_THEN[(n + choice) % len(_THEN)]}."

    return [
        [("\n\n".join([*(story(s) + ending(s, 0) for s in shots("hs", n, 10, 400)), story(n)]), ending(n, choice))
         for choice in range(4)]
        for n in range(items)
    ]  # fmt: skip
