"""Bradley-Terry ratings, on the scale of Elo, with intervals from a bootstrap over conversations.

Shape suffixes: D draws of the bootstrap, G conversations, C candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scripts.blind.votes import Judged
from scripts.recipe.base import keyed_hash

DRAWS = 1000
_PRIOR = 0.5
_SCALE = 400 / math.log(10)
# Newton from 0 on a concave function; a step of at most 1 keeps it from overshooting where one side won all.
_STEPS, _LARGEST_STEP, _SETTLED = 100, 1.0, 1e-10


@dataclass(frozen=True)
class Rating:
    """One candidate; ratings have mean 0, and 400 points more are odds of 10 to 1."""

    candidate: str
    value: float
    low: float | None
    """95 % interval; None with a single conversation."""
    high: float | None
    won: int
    lost: int
    tied: int


def rate(votes: Sequence[Judged], candidates: Sequence[str]) -> list[Rating]:
    """Return the ratings, best first. Votes without a choice don't count.

    Each draw takes as many conversations as there are, with repetition, and all votes on them, since votes on one
    conversation depend on each other. Draws are keyed hashes, so the same votes give the same intervals.
    """
    votes = [vote for vote in votes if vote.choice]
    conversations = sorted({vote.conversation for vote in votes})
    wins_GCC = np.zeros((len(conversations), len(candidates), len(candidates)))
    for vote in votes:
        group, a, b = conversations.index(vote.conversation), candidates.index(vote.left), candidates.index(vote.right)
        wins_GCC[group, a, b] += vote.share
        wins_GCC[group, b, a] += 1 - vote.share
    (best_C,) = strengths(wins_GCC.sum(0)[None])
    count = len(conversations)
    times_DG = np.zeros((DRAWS, count))
    for d in range(DRAWS):
        for i in range(count):
            times_DG[d, keyed_hash("bootstrap", d, i) % count] += 1
    spread_DC = np.sort(strengths(np.einsum("dg,gab->dab", times_DG, wins_GCC)), axis=0)
    rows = []
    for c, name in enumerate(candidates):
        low, high = (float(spread_DC[i, c]) if count > 1 else None for i in (DRAWS // 40, -1 - DRAWS // 40))
        mine = [v.share if v.left == name else 1 - v.share for v in votes if name in (v.left, v.right)]
        rows.append(Rating(name, float(best_C[c]), low, high, mine.count(1.0), mine.count(0.0), mine.count(0.5)))
    return sorted(rows, key=lambda r: (-r.value, r.candidate))


def strengths(wins_DCC: Any) -> Any:
    """Return the most likely ratings [D, C] of tables of wins [D, C, C]: what the row won against the column.

    Half a win and half a loss against an average candidate are added to each: one that won every time stays finite.
    """
    games_DCC = wins_DCC + wins_DCC.transpose(0, 2, 1)
    won_DC = wins_DCC.sum(2)
    theta_DC = np.zeros(won_DC.shape)
    diagonal = np.arange(theta_DC.shape[1])
    for _ in range(_STEPS):
        chance_DCC = 1 / (1 + np.exp(theta_DC[:, None, :] - theta_DC[:, :, None]))
        own_DC = 1 / (1 + np.exp(-theta_DC))
        slope_DC = won_DC - (games_DCC * chance_DCC).sum(2) + _PRIOR - 2 * _PRIOR * own_DC
        bend_DCC = -games_DCC * chance_DCC * (1 - chance_DCC)
        bend_DCC[:, diagonal, diagonal] -= bend_DCC.sum(2) - 2 * _PRIOR * own_DC * (1 - own_DC)
        step_DC = np.linalg.solve(bend_DCC, slope_DC[:, :, None])[:, :, 0].clip(-_LARGEST_STEP, _LARGEST_STEP)
        theta_DC = theta_DC + step_DC
        if np.abs(step_DC).max() < _SETTLED:
            break
    return _SCALE * (theta_DC - theta_DC.mean(1, keepdims=True))
