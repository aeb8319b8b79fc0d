"""Whether testers agree: Krippendorff's alpha, and each tester against the others."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations

from scripts.blind.votes import Judged

Units = Mapping[str, Mapping[str, str]]
"""{comparison: {tester: what was preferred}}."""


def units_of(votes: Sequence[Judged]) -> dict[str, dict[str, str]]:
    """Return what each tester preferred; that both or neither are good is the same here: no preference."""
    units: dict[str, dict[str, str]] = {}
    for vote in votes:
        if vote.choice:
            units.setdefault(vote.comparison, {})[vote.tester] = vote.choice if vote.share != 0.5 else "tie"
    return units


def alpha(units: Units) -> float | None:
    """Return Krippendorff's alpha for nominal values: 1 all agree, 0 as by chance; None with nothing to compare.

    Source: Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), coincidence matrix.
    """
    weights: dict[tuple[str, str], list[float]] = {}
    for found in units.values():
        for a, b in permutations(found.values(), 2):
            weights.setdefault((a, b), []).append(1 / (len(found) - 1))
    if not weights:
        return None
    pairs = {pair: math.fsum(shares) for pair, shares in weights.items()}
    totals: Counter[str] = Counter()
    for (value, _), share in pairs.items():
        totals[value] += share  # type: ignore[assignment]
    everything = math.fsum(totals.values())
    observed = math.fsum(share for (a, b), share in pairs.items() if a != b)
    expected = math.fsum(totals[a] * totals[b] for a in totals for b in totals if a != b) / (everything - 1)
    return 1 - observed / expected if expected else None


def equal_share(units: Units) -> tuple[int, float | None]:
    """Return (comparisons with two testers or more, share of pairs of votes on them that are equal)."""
    shared = [list(found.values()) for found in units.values() if len(found) > 1]
    pairs = [a == b for values in shared for a, b in permutations(values, 2)]
    return len(shared), sum(pairs) / len(pairs) if pairs else None


def with_others(units: Units) -> dict[str, tuple[int, float | None]]:
    """Return {tester: (votes, share of equal votes among those that others gave on the same comparisons)}."""
    pairs: dict[str, list[bool]] = {}
    count: Counter[str] = Counter()
    for found in units.values():
        for tester, value in found.items():
            count[tester] += 1
            pairs.setdefault(tester, []).extend(value == other for name, other in found.items() if name != tester)
    return {tester: (count[tester], sum(same) / len(same) if same else None) for tester, same in pairs.items()}
