"""BIG-bench JSON tasks, by the rule that the announcement's numbers were made with (zero-shot).

Source: EleutherAI/lm-evaluation-harness b281b09, lm_eval/tasks/bigbench.py. lm-eval's present tasks differ: BIG-bench's
own rendering, tracking tasks of 3, 5 and 7 objects mixed, plain argmax ties.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from scripts.artifact.stage import StageError
from scripts.benchmark.formats.reading import read_json, scores_of, text_of
from scripts.benchmark.items import Item, make_item

_SEED = 42


def render(path: Path) -> list[Item]:
    """Return the items: task_prefix + example_input_prefix + input + [choices] + example_output_prefix.

    Exact duplicates are dropped (sports_understanding: 1000 -> 986). Continuations are the bare choices in the order
    of `target_scores`, without an added space.
    """
    task = read_json(path)
    if not isinstance(task, dict) or not isinstance(task.get("examples"), list):
        raise StageError(f"{path.name}: must be a JSON object with a list `examples`")
    if "multiple_choice_grade" not in task.get("metrics", []):
        raise StageError(f"{path.name}: metrics: found {task.get('metrics')!r:.80}; must hold multiple_choice_grade")
    items, seen = [], set()
    for number, example in enumerate(task["examples"]):
        where = f"{path.name}: examples[{number}]"
        text = json.dumps(example)
        if text in seen:
            continue
        seen.add(text)
        if not isinstance(example, dict):
            raise StageError(f"{where}: found a {type(example).__name__}; must be an object")
        targets = scores_of(where, example, "target_scores")
        context = _prompt(task, text_of(where, example, "input"), targets)
        items.append(make_item(where, context, list(targets), list(targets.values()), delimiter=""))
    return items


def _prompt(task: dict[str, Any], question: str, targets: dict[str, float]) -> str:
    choices = ""
    if task.get("append_choices_to_input", True):
        prefix = task.get("choice_prefix", "\n  choice: ")
        choices = "".join(f"{prefix}{choice}" for choice in shuffled(sorted(targets)))
    before = f"{task.get('task_prefix', '')}{task.get('example_input_prefix', chr(10) + 'Q: ')}"
    return f"{before}{question}{choices}{task.get('example_output_prefix', chr(10) + 'A: ')}"


def shuffled(choices: list[str]) -> list[str]:
    """Return the choices in the old harness' order: a generator seeded with 42, made anew for every example.

    So the order depends on their number only: [0, 1, 2] for 3 choices, [1, 3, 0, 2] for 4. RandomState's stream is
    frozen by numpy's compatibility policy.
    """
    return [choices[i] for i in np.random.RandomState(_SEED).permutation(len(choices))]
