"""AGIEval v1 JSON lines, English question answering, zero-shot.

Source of the prompt: ruixiangcui/AGIEval, src/dataset_loader.py (zero-shot, English). Scored are the full option texts
after one space, not letters: in the announcement acc differs from acc_norm in every row.
"""

from pathlib import Path

from scripts.artifact.stage import StageError
from scripts.benchmark.formats.reading import read_jsonl, text_of, texts_of
from scripts.benchmark.items import Item, make_item

_LETTERS = "ABCDEFG"


def render(path: Path) -> list[Item]:
    """Return the items: passage, then `Q: {question} Answer Choices: {options}`, newline, the request for a letter."""
    items = []
    for where, row in read_jsonl(path):
        options, label = texts_of(where, row, "options"), row.get("label")
        letters = _LETTERS[: len(options)]
        if len(options) > len(_LETTERS) or not isinstance(label, str) or len(label) != 1 or label not in letters:
            raise StageError(
                f"{where}: label: found {label!r:.80} with {len(options)} options; must be one of {letters}"
            )
        passage = "" if row.get("passage") is None else text_of(where, row, "passage")
        asked = f"{passage}Q: {text_of(where, row, 'question')} Answer Choices: {' '.join(options)}"
        context = f"{asked}\nA: Among A through {letters[-1]}, the answer is"
        items.append(make_item(where, context, options, [float(letter == label) for letter in letters]))
    return items
