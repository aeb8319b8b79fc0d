"""Atelier's own tasks: JSON lines `{"question": ..., "choices": [...], "answer": index}`."""

from pathlib import Path

from scripts.artifact.stage import StageError
from scripts.benchmark.formats.reading import read_jsonl, text_of, texts_of
from scripts.benchmark.items import Item, make_item


def render(path: Path) -> list[Item]:
    """Render `Question: {question}`, newline, `Answer:`; each choice follows after one space."""
    items = []
    for where, row in read_jsonl(path):
        choices, answer = texts_of(where, row, "choices"), row.get("answer")
        if type(answer) is not int or not 0 <= answer < len(choices):
            raise StageError(f"{where}: answer: found {answer!r:.80}; must be an index of choices, from 0")
        context = f"Question: {text_of(where, row, 'question')}\nAnswer:"
        items.append(make_item(where, context, choices, [float(i == answer) for i in range(len(choices))]))
    return items
