"""TruthfulQA's `mc_task.json`: mc1 (one true choice) and mc2 (probability of all true choices).

The harness puts a fixed six-question preamble before every item. That preamble is a third party's text and is not
copied here: items are rendered zero-shot as `Q: ...`, newline, `A:`. So our values are NOT comparable with the
leaderboard's or the announcement's; compare our models with one another.

In mc1 the true choice is always the first one of the file: a scorer stuck at index 0 gets 100 %.
mc2 counts the choices whose label is 1, as lm-eval does since its task version 3; older versions counted all before
the first 0, which differs on 2 of the 817 items.
"""

from pathlib import Path

from scripts.artifact.stage import StageError
from scripts.benchmark.formats.reading import read_json, scores_of, text_of
from scripts.benchmark.items import Item, make_item


def render_mc1(path: Path) -> list[Item]:
    """Return the items with their `mc1_targets`."""
    return _render(path, "mc1_targets")


def render_mc2(path: Path) -> list[Item]:
    """Return the items with their `mc2_targets`."""
    return _render(path, "mc2_targets")


def _render(path: Path, key: str) -> list[Item]:
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StageError(f"{path.name}: found a {type(rows).__name__}; must be a JSON list of objects")
    items = []
    for number, row in enumerate(rows):
        where = f"{path.name}[{number}]"
        targets = scores_of(where, row, key)
        if any(score not in (0, 1) for score in targets.values()):
            raise StageError(f"{where}: {key}: found scores {sorted(set(targets.values()))}; must be 0 or 1")
        context = f"Q: {text_of(where, row, 'question')}\nA:"
        items.append(make_item(where, context, list(targets), list(targets.values())))
    return items
