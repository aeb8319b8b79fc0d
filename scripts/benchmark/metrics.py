"""Metrics of a task from the likelihoods of its choices: what lm-eval 0.4.13 computes, without its imports.

The evaluator of lm-eval imports datasets, for which frozen items have no other use. What is computed here is an
argmax and a mean; a test holds all of it to lm-eval's own evaluator: each item to the bit, means to their last digit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.benchmark.grade import argmax
from scripts.benchmark.items import Item
from scripts.benchmark.render import Format
from scripts.benchmark.replies import mean_and_error


@dataclass(frozen=True)
class Graded:
    """What came out for one task."""

    metrics: dict[str, tuple[float, float | None]]
    """{metric, as the announcement prints it: (value, standard error)}."""
    scores: list[dict[str, float]]
    """{metric: score} of each item; a metric's value is their mean."""


def grade(items: Sequence[Item], form: Format, loglikelihoods: Sequence[Sequence[float]]) -> Graded:
    """Return a task's metrics and scores.

    Args:
        items: at least one.
        form: how they are scored.
        loglikelihoods: for each item one for each choice.
    """
    scores = [
        {ours: _score(theirs, item, form, values) for ours, theirs in form.metrics.items()}
        for item, values in zip(items, loglikelihoods, strict=True)
    ]
    return Graded({metric: mean_and_error([s[metric] for s in scores]) for metric in form.metrics}, scores)


def _score(metric: str, item: Item, form: Format, loglikelihoods: Sequence[float]) -> float:
    """Return an item's score: the format's own, or 1 if the pick is (one of) the best choices.

    Source:
        lm-eval 0.4.13, `ConfigurableTask.process_results`: `acc_norm` divides each log-likelihood by the characters of
        its choice, without the delimiter; where the choices end the context, by those of the context.
    """
    if form.score is not None:
        return form.score(list(loglikelihoods), item)
    if metric == "acc_norm":
        choices = item.contexts or item.choices
        loglikelihoods = [value / len(choice) for value, choice in zip(loglikelihoods, choices, strict=True)]
    return float(item.labels[argmax(loglikelihoods)] == max(item.labels))
