"""Held-out loss in bits per UTF-8 byte: comparable between tokenizers, unlike loss per token."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.artifact.stage import StageError
from scripts.benchmark.rows import END, read_rows
from scripts.recipe.base import keyed_hash
from scripts.recipe.benchmark import Task

if TYPE_CHECKING:
    from scripts.benchmark.model import Model


@dataclass(frozen=True, order=True)
class Row:
    """One held-out conversation, as the exact text that training would see; END stands for the end token."""

    source: str
    id: str
    text: str

    @property
    def size(self) -> int:
        """Bytes of its text."""
        return len(self.text.replace(END, "").encode())


def held_out_rows(name: str, task: Task, mixes: Mapping[str, Path]) -> list[Row]:
    """Return the validation rows of all mixtures, sorted by source and id; a row of several mixtures counts once.

    Raises:
        StageError: the recipe has no mixture, or holds no rows out.
    """
    if task.file is not None:
        raise StageError(f"task {name}: file: found {task.file!r}; bits_per_byte reads held-out rows, remove the key")
    rows = {Row(row.source, row.id, "".join(row.texts)) for row in read_rows(mixes, "validation")}
    kept = sorted(row for row in rows if row.size)
    if not kept:
        found = f"{len(mixes)} mixtures without held-out rows" if mixes else "no mixture in the recipe"
        raise StageError(f"task {name}: found {found}; bits_per_byte needs validation rows, raise val_set_size")
    return kept


def some_of(rows: Sequence[Row], limit: int | None) -> list[Row]:
    """Return all rows, or those `limit` of the smallest hashes, so that all sources are among them; in their order."""
    if limit is None:
        return list(rows)
    return sorted(heapq.nsmallest(limit, rows, key=lambda row: (keyed_hash("held out", row.source, row.id), row)))


def score_rows(model: "Model", rows: Sequence[Row]) -> list[float]:
    """Return the natural log-likelihood of each row's text after BOS; the rows of one call share passes.

    A text longer than `max_length` tokens is scored in windows of that many: each sees one token before it, the last
    one is filled up with earlier tokens on its left (lm-eval's rolling likelihood, context_len 1).
    """
    from lm_eval.api.instance import Instance

    model.use_bos(False)  # lm-eval puts its prefix token, the tokenizer's BOS, before the first window itself
    requests = [Instance("loglikelihood_rolling", {}, (row.text,), number) for number, row in enumerate(rows)]
    return [float(value) for value in model.loglikelihood_rolling(requests)]


def bits_per_byte(rows: Sequence[Row], loglikelihoods: Sequence[float]) -> dict[str, tuple[float, float | None]]:
    """Return {metric: (bits per byte, standard error)}, overall and for each source.

    End tokens cost bits and have no bytes: to know when to stop is a part of the text.

    Value: sum of bits over sum of bytes. Standard error of that ratio, with conversations as the sampling unit
    (linearised): sqrt(n / (n - 1) * sum((bits_i - value * bytes_i)^2)) / sum(bytes); None for a single row.
    """
    return {
        name: _ratio([rows[i] for i in members], [loglikelihoods[i] for i in members])
        for name, members in _by_source(rows).items()
    }


def bootstrap_intervals(rows: Sequence[Row], loglikelihoods: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Return {metric: (low, high)}: the middle 95 % of 1,000 Poisson bootstraps over conversations.

    Each conversation has its own stream of weights, keyed by source and id: adding one changes no other's weights,
    and all models are resampled alike. Unlike the standard error the interval may be lopsided.
    """
    sizes = [row.size for row in rows]
    weights = [_poisson(keyed_hash("bootstrap", row.source, row.id)) for row in rows]
    found = {}
    for name, members in _by_source(rows).items():
        bits, total = np.zeros(_DRAWS), np.zeros(_DRAWS)
        for i in members:  # one after another: a matrix product's last bits depend on the processor
            bits += weights[i] * (-loglikelihoods[i] / math.log(2))
            total += weights[i] * sizes[i]
        draws = np.sort(bits[total > 0] / total[total > 0])
        if len(members) > 1:
            found[name] = float(draws[len(draws) // 40]), float(draws[-1 - len(draws) // 40])
    return found


_DRAWS = 1000


def _poisson(key: int) -> "np.ndarray[Any, Any]":
    """Return Poisson(1) weights from raw 64-bit draws: unlike numpy's own `poisson`, the stream is fixed for good."""
    steps = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(12)])
    uniform = (np.random.Philox(key=key).random_raw(_DRAWS) >> np.uint64(11)) / 2.0**53
    return np.searchsorted(steps, uniform, side="right").astype(np.float64)


def _by_source(rows: Sequence[Row]) -> dict[str, list[int]]:
    groups = {"bits_per_byte": list(range(len(rows)))}
    for index, row in enumerate(rows):
        groups.setdefault(f"bits_per_byte/{row.source}", []).append(index)
    return groups


def _ratio(rows: Sequence[Row], loglikelihoods: Sequence[float]) -> tuple[float, float | None]:
    sizes = [row.size for row in rows]
    bits = [-value / math.log(2) for value in loglikelihoods]
    value, count = math.fsum(bits) / sum(sizes), len(rows)
    if count < 2:
        return value, None
    squares = math.fsum((b - value * size) ** 2 for b, size in zip(bits, sizes, strict=True))
    return value, math.sqrt(count / (count - 1) * squares) / sum(sizes)
