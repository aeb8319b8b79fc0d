"""Published benchmark figures (`config/published/`): typed, and the GRIM test of their arithmetic.

A proportion of N items has only N + 1 possible values: a printed value and its standard error pin down how many
items were scored, and how many of them were right.
"""

import math
from typing import Annotated

from pydantic import Field

from scripts.recipe.base import Count, Name, Ratio, Strict


class Figure(Strict):
    """One printed value, a share of 1."""

    value: Ratio
    stderr: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    correct: Annotated[int, Field(ge=0)] | None = None
    """The count k with k/N = value, where the metric is a count of right items."""


class PublishedTask(Strict):
    """One printed row."""

    items: Count
    """Number of items N behind the row."""
    shots: Annotated[int, Field(ge=0)]
    printed_as: str | None = None
    """Other name in print."""
    actually: str | None = None
    """What was really measured, where it differs from the name."""
    note: str = ""
    metrics: dict[str, Figure]


class PublishedTable(Strict):
    """One printed table."""

    title: str
    protocol: str
    mean: Ratio | None = None
    """Printed mean of the table."""
    tasks: dict[Name, PublishedTask]


class Published(Strict):
    """Figures of one model as somebody printed them: `config/published/<name>.yaml`."""

    model: Name
    """The model of the recipe's table that these figures are about."""
    title: str
    source: str
    """Where they were printed."""
    note: str = ""
    tables: dict[Name, PublishedTable]

    def find(self, table: str | None, task: str, metric: str) -> tuple[PublishedTable, PublishedTask, Figure] | None:
        """Return the printed figure of a metric, or None."""
        if table is None or table not in self.tables or task not in self.tables[table].tasks:
            return None
        row = self.tables[table].tasks[task]
        return (self.tables[table], row, row.metrics[metric]) if metric in row.metrics else None


def consistent_counts(value: float, stderr: float | None, items: int, digits: int = 4) -> tuple[int, ...]:
    """Return every k, 0 <= k <= items, whose proportion and standard error print as `value` and `stderr`.

    Args:
        value: printed accuracy, 0 to 1.
        stderr: printed standard error (sample deviation over the root of the number of items); None where only the
            value was printed. A single item has none, so that no count fits a printed one.
        items: number of items, at least 1.
        digits: decimals printed.
    """
    if stderr is not None and items < 2:
        return ()
    margin = 10.0**-digits  # one unit of the last digit on both sides; the printed form decides
    low = max(0, math.floor((value - margin) * items))
    high = min(items, math.ceil((value + margin) * items))

    def prints_alike(k: int) -> bool:
        p = k / items
        if f"{p:.{digits}f}" != f"{value:.{digits}f}":
            return False
        return stderr is None or f"{math.sqrt(p * (1 - p) / (items - 1)):.{digits}f}" == f"{stderr:.{digits}f}"

    return tuple(k for k in range(low, high + 1) if prints_alike(k))
