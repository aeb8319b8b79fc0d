"""TruthfulQA's `mc_task.json`: mc1 (one true choice) and mc2 (probability of all true choices).

Two prompts. The suite `truthfulqa` renders `Q: ...`, newline, `A:` zero-shot: its values compare our models with one
another only. The leaderboard's prompt has six fixed solved questions before each item. That preamble is a third
party's text and isn't copied here: it is read from the installed lm-eval, which has the old harness' words, and checked
against their digest.

In mc1 the true choice is always the first one of the file: a scorer stuck at index 0 gets 100 %.
mc2 counts the choices whose label is 1, as lm-eval does since its task version 3; the old harness counted all before
the first 0, which differs on 2 of the 817 items.
"""

import importlib.util
from functools import cache
from pathlib import Path

import yaml
from jinja2 import Environment

from scripts.artifact.digest import sha256_bytes
from scripts.artifact.stage import StageError
from scripts.benchmark.formats.reading import read_json, scores_of, text_of
from scripts.benchmark.items import Item, make_item

PREAMBLE_SHA256 = "5c0da5f346e8652c9a85061a6e3aca6bc82e10a8a7dad4596fe980a9c9bae543"
"""Digest of QA_PROMPT in EleutherAI/lm-evaluation-harness b281b09, lm_eval/tasks/truthfulqa.py."""
_TEMPLATE = "truthfulqa/truthfulqa_mc1.yaml"


def render_mc1(path: Path) -> list[Item]:
    """Return the items with their `mc1_targets`, zero-shot."""
    return _render(path, "mc1_targets", "")


def render_mc2(path: Path) -> list[Item]:
    """Return the items with their `mc2_targets`, zero-shot."""
    return _render(path, "mc2_targets", "")


def render_ollv1_mc1(path: Path) -> list[Item]:
    """Return the items with their `mc1_targets`, after the leaderboard's six questions."""
    return _render(path, "mc1_targets", preamble())


def render_ollv1_mc2(path: Path) -> list[Item]:
    """Return the items with their `mc2_targets`, after the leaderboard's six questions, with the old rule of truth."""
    return _render(path, "mc2_targets", preamble(), old_rule=True)


@cache
def preamble() -> str:
    """Return the six solved questions and the empty line after them.

    Raises:
        StageError: the installed lm-eval has other words than the old harness.
    """
    question = "?"
    text = Environment(autoescape=False).from_string(_template()).render(question=question)  # noqa: S701 - plain text
    found, ending = text.removesuffix(f"\n\nQ: {question}\nA:"), text[-len(f"\n\nQ: {question}\nA:") :]
    if sha256_bytes(found.encode()) != PREAMBLE_SHA256 or not ending.startswith("\n\nQ: "):
        raise StageError(
            f"lm-eval's {_TEMPLATE} has another preamble than the harness of 2023; install the version of "
            "envs/benchmark.lock"
        )
    return f"{found}\n\n"


def _template() -> str:
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "tasks" / _TEMPLATE
    try:
        return str(yaml.safe_load(path.read_text(encoding="utf-8"))["doc_to_text"])
    except (OSError, KeyError, yaml.YAMLError) as error:
        raise StageError(f"lm-eval's {_TEMPLATE} can't be read ({error}); install envs/benchmark.lock") from None


def _render(path: Path, key: str, before: str, old_rule: bool = False) -> list[Item]:
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StageError(f"{path.name}: found a {type(rows).__name__}; must be a JSON list of objects")
    items = []
    for number, row in enumerate(rows):
        where = f"{path.name}[{number}]"
        targets = scores_of(where, row, key)
        if any(score not in (0, 1) for score in targets.values()):
            raise StageError(f"{where}: {key}: found scores {sorted(set(targets.values()))}; must be 0 or 1")
        context = f"{before}Q: {text_of(where, row, 'question')}\nA:"
        labels = _before_first_false(list(targets.values())) if old_rule else list(targets.values())
        items.append(make_item(where, context, list(targets), labels))
    return items


def _before_first_false(labels: list[float]) -> list[float]:
    """Return 1 for every choice before the first false one, 0 for the rest: the harness' rule until 2025."""
    first = labels.index(0) if 0 in labels else len(labels)
    return [float(index < first) for index in range(len(labels))]
