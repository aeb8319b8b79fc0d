"""What each defect of the original builder changes: the source is counted without any, with each alone, with all."""

from collections.abc import Callable
from typing import Any

from scripts.recipe.compat import CleanCompat

# Decides nothing before the mix.
_LATER = frozenset({"orca_cap"})


def differences(compat: CleanCompat, count: Callable[[CleanCompat], dict[str, Any]]) -> dict[str, Any]:
    """Return rows and characters of the source without the switches that are on, with each alone, and with all.

    Args:
        compat: switches that are on; each costs one more reading of the source, and so do "none" and "all".
        count: cleans the source under the given switches and returns its counts.
    """
    names = [name for name in compat.on if name not in _LATER]
    variants = {"none": CleanCompat(), **{name: compat.only(name) for name in names}, "all": compat}
    found = {name: count(switches) for name, switches in variants.items()}
    base = found["none"]
    return {
        name: {
            "rows_out": counts["rows_out"],
            "chars": counts["chars"],
            "rows_more": counts["rows_out"] - base["rows_out"],
            "chars_more": counts["chars"] - base["chars"],
            "rejected": counts["rejected"],
        }
        for name, counts in found.items()
    }
