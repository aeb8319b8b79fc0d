"""The old harness' choice of solved examples: one stream of random numbers for the order of items and for all shots.

Source:
    EleutherAI/lm-evaluation-harness b281b09, lm_eval/evaluator.py and lm_eval/base.py. Replayed exactly, because the
    published values depend on it. Python keeps `random.Random`'s `shuffle` and `sample` stable; a golden test watches.
"""

import random

from scripts.artifact.stage import StageError

SEED = 42


def historical_shots(items: int, examples: int, shots: int) -> list[tuple[int, list[int]]]:
    """Return (item, its examples) for every item, in the order in which the old harness scored them.

    Args:
        items: number of items; they are shuffled first.
        examples: number of solved examples to draw from, in the order of their file.
        shots: how many each item gets, drawn without repetition from the same stream.

    Raises:
        StageError: fewer examples than shots.
    """
    if shots > examples:
        raise StageError(f"needs {shots} solved examples, found {examples}; fetch the whole training split")
    stream = random.Random(SEED)  # noqa: S311 - the published order, not a secret
    order = list(range(items))
    stream.shuffle(order)
    return [(item, stream.sample(range(examples), shots)) for item in order]


def with_shots(solved: list[str], question: str, description: str = "") -> str:
    """Return the prompt: description, solved examples, question, with an empty line after each but the last."""
    return "\n\n".join([*([description] if description else []), *solved, question])
