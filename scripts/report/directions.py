"""Which way each measure is better: the one table for words, arrows and colours of all pages."""

LOWER_IS_BETTER = frozenset(
    {
        "bits_per_byte",
        "refusal_margin",
        "user_turn",
        "fails_to_stop",
        "repeated_4grams",
        "loops",
        "empty",
        "leaked_names",
        "artefacts",
        # Of texts that should not have been learned by heart (tasks of the format `extraction`).
        "extracted",
    }
)
NEITHER = frozenset({"words", "loglikelihood"})
"""Measures that only describe: a longer reply is not a better one, and a text of which `extraction` finds the next
tokens likelier may be learned by heart or simply be understood better."""


def direction(metric: str) -> int:
    """Return 1 if more is better, -1 if less is, 0 if neither.

    Args:
        metric: name of a metric; what follows a slash (a source, a turn) doesn't matter.
    """
    name = metric.partition("/")[0]
    return 0 if name in NEITHER else -1 if name in LOWER_IS_BETTER else 1


def arrow(metric: str) -> str:
    """Return ↑ if more is better, ↓ if less is, nothing if neither."""
    return {1: "↑", -1: "↓", 0: ""}[direction(metric)]
