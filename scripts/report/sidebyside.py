"""Hold two runs, or two recipes, against each other: artifacts, settings, losses, benchmarks, speed.

python -m scripts.report compare results/demo ../other/results/demo --page difference.html
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.artifact.digest import ArtifactError
from scripts.report.directions import direction
from scripts.report.items import Items, compare_items, items_of
from scripts.report.numbers import by_luck, fixed, p_value, percent
from scripts.report.sides import Side, pair_models, read_side

Pairs = Sequence[tuple[str, str]]
LEVEL = 0.05
_WAYS = {1: "(higher is better)", -1: "(lower is better)", 0: ""}


@dataclass
class Table:
    """One table of the comparison; cells are ready to print."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""
    left: int = 1
    """Columns of words, at the left; the others hold figures."""


def tables(a: Side, b: Side, pairs: Pairs) -> list[Table]:
    """Return all tables that have something to say."""
    made = (
        artifacts(a, b),
        mixtures(a, b),
        settings(a, b, pairs),
        trainings(a, b, pairs),
        merges(a, b, pairs),
        benchmarks(a, b, pairs),
        bits(a, b, pairs),
        role_play(a, b, pairs),
        speed(a, b, pairs),
    )
    return [table for table in made if table.rows or table.note]


def artifacts(a: Side, b: Side) -> Table:
    """Which artifacts have other bytes."""
    names = list(dict.fromkeys([*a.values, *b.values]))
    same = sum(a.values.get(name) == b.values.get(name) for name in names)
    rows = [[name, *(s.values.get(name, "-")[:12] for s in (a, b))] for name in names]
    rows = [row for row, name in zip(rows, names, strict=True) if a.values.get(name) != b.values.get(name)]
    note = f"{same} of {len(names)} artifacts have the same bytes in both"
    return Table("Artifacts that differ", ["artifact", "A", "B"], rows, note)


def mixtures(a: Side, b: Side) -> Table:
    """What the mixtures of equal names are made of."""
    table = Table("Mixtures", ["mixture", "source", "rows A", "rows B", "share % A", "share % B"], left=2)
    for name in dict.fromkeys(m["mixture"] for side in (a, b) for m in side.facts["mixtures"]):
        found = [
            {s["source"]: s for m in side.facts["mixtures"] if m["mixture"] == name for s in m["sources"]}
            for side in (a, b)
        ]
        for source in dict.fromkeys([*found[0], *found[1]]):
            rows, shares = ([_get(f, source, key) for f in found] for key in ("rows_train", "share_percent"))
            if rows[0] != rows[1] or shares[0] != shares[1]:
                table.rows.append(
                    [name, source, *map(whole, rows), *("-" if s is None else percent(s) for s in shares)]
                )
    return table


def settings(a: Side, b: Side, pairs: Pairs) -> Table:
    """Settings of a fine-tune that differ."""
    table = Table("Training settings that differ", ["model", "setting", "A", "B"], left=4)
    for one, two in _both(a, b, pairs, "trainings"):
        flat = [dict(_flat(run.get("settings", {}))) | {"processes": run.get("processes")} for run in (one, two)]
        for key in dict.fromkeys([*flat[0], *flat[1]]):
            values = [f.get(key) for f in flat]
            if values[0] != values[1]:
                table.rows.append([_name(one["model"], two["model"]), key, *map(str, values)])
    return table


def trainings(a: Side, b: Side, pairs: Pairs) -> Table:
    """Losses and sizes of each fine-tune."""
    table = Table("Training", ["model", "figure", "A", "B", "B - A"], note="", left=2)
    figures = (
        ("evaluation loss before", "first_eval_loss", 4),
        ("evaluation loss, published", "published_eval_loss", 4),
        ("lowest evaluation loss", "best_eval_loss", 4),
        ("steps", "steps", 0),
        ("tokens", "train_tokens", 0),
        ("parameters", "parameters", 0),
    )
    for one, two in _both(a, b, pairs, "trainings"):
        for title, key, digits in figures:
            pair = (one.get(key), two.get(key))
            table.rows.append([_name(one["model"], two["model"]), title, *_figures(*pair, digits)])
    return table


def merges(a: Side, b: Side, pairs: Pairs) -> Table:
    """Ratios that differ."""
    table = Table("Merge ratios that differ", ["model", "tensors", "first A", "first B", "last A", "last B"], left=2)
    for one, two in _both(a, b, pairs, "merges"):
        other = {p["projection"]: p for p in two["projections"]}
        for p in one["projections"]:
            q = other.get(p["projection"], {})
            ends = [x.get(key) for key in ("first_ratio", "last_ratio") for x in (p, q)]
            if ends[0] != ends[1] or ends[2] != ends[3]:
                name = _name(one["model"], two["model"])
                table.rows.append([name, p["projection"], *(number(value) for value in ends)])
    return table


def benchmarks(a: Side, b: Side, pairs: Pairs) -> Table:
    """Differences in points, each with a test: on the same items where both have these, else of two shares."""
    table = Table("Benchmarks", ["model", "task", "A", "B", "points", "p", "test"], left=2)
    seconds = {(r["model"], r["suite"], r["task"], r["metric"]): r for r in b.facts["benchmarks"]}
    found: list[float] = []
    for first, second in pairs:
        for one in (row for row in a.facts["benchmarks"] if row["model"] == first):
            two = seconds.get((second, one["suite"], one["task"], one["metric"]))
            if two is None:
                continue
            p, test = _test(a, b, one, two)
            found += [] if p is None else [p]
            points = 100 * (two["value"] - one["value"])
            task = f"{one['suite']}: {one['task']} {one['metric']}"
            values = [number(one["value"]), number(two["value"]), fixed(points, 2, sign=True)]
            marked_p = "-" if p is None else f"{p_value(p)}{'*' if p < LEVEL else ''}"
            table.rows.append([_name(first, second), task, *values, marked_p, test])
    if found:
        marked, luck = sum(p < LEVEL for p in found), by_luck(len(found), LEVEL)
        table.note = f"* p < {LEVEL}: {marked} of {len(found)} tests; about {luck} would be so by luck"
    elif table.rows:
        table.note = "no tests: scores of single items and standard errors are missing"
    return table


def bits(a: Side, b: Side, pairs: Pairs) -> Table:
    """Held-out bits per byte: lower is better."""
    table = Table("Held-out bits per byte (lower is better)", ["model", "source", "A", "B", "B - A"], left=2)
    for one, two in _both(a, b, pairs, "bits_per_byte"):
        name = _name(one["model"], two["model"])
        table.rows.append([name, "all", *_figures(one["value"], two["value"], 4)])
        for source in dict.fromkeys([*one["sources"], *two["sources"]]):
            pair = (one["sources"].get(source), two["sources"].get(source))
            table.rows.append([name, source, *_figures(*pair, 4)])
    return table


def role_play(a: Side, b: Side, pairs: Pairs) -> Table:
    """Measures of conversations, each with the way that is better."""
    table = Table("Role-play", ["model", "measure", "A", "B", "B - A"], left=2)
    seconds = {(r["model"], r["suite"], r["task"], r["metric"]): r for r in b.facts.get("role_play", [])}
    for first, second in pairs:
        for one in (row for row in a.facts.get("role_play", []) if row["model"] == first):
            two = seconds.get((second, one["suite"], one["task"], one["metric"]))
            if two is not None and (one["value"] or two["value"]):
                name = f"{one['task']} {one['metric']} {_WAYS[direction(one['metric'])]}".rstrip()
                table.rows.append([_name(first, second), name, *_figures(one["value"], two["value"], 3)])
    return table


def speed(a: Side, b: Side, pairs: Pairs) -> Table:
    """What building took: differs from run to run and machine to machine."""
    table = Table("Speed", ["", "A", "B", "B / A"])
    for first, second in pairs:
        one, two = a.measured.speeds.get(first), b.measured.speeds.get(second)
        if one and two:
            name = _name(first, second)
            table.rows.append([f"{name}: tokens/s", *_ratio(one.tokens_per_s, two.tokens_per_s)])
            if one.mfu is not None or two.mfu is not None:
                table.rows.append([f"{name}: MFU", *(number(s.mfu, 3) for s in (one, two)), ""])
            table.rows.append([f"{name}: peak GB", *_ratio(_giga(one.peak_bytes), _giga(two.peak_bytes), 2)])
    stages = [{row["stage"]: row["seconds"] for row in side.measured.stages} for side in (a, b)]
    for stage in (s for s in stages[0] if s in stages[1]):
        table.rows.append([f"{stage}: seconds, all jobs", *_ratio(stages[0][stage], stages[1][stage], digits=1)])
    return table


def number(value: float | None, digits: int = 4) -> str:
    """Return a number of fixed digits or a dash."""
    return "-" if value is None else fixed(value, digits, thousands=True)


def whole(value: float | None) -> str:
    """Return 1,234 or a dash."""
    return number(value, 0)


def _figures(one: float | None, two: float | None, digits: int) -> list[str]:
    difference = "-" if one is None or two is None else fixed(two - one, digits, sign=True, thousands=True)
    return [number(one, digits), number(two, digits), difference]


def _ratio(one: float | None, two: float | None, digits: int = 0) -> list[str]:
    return [number(one, digits), number(two, digits), f"{two / one:.2f}" if one and two else "-"]


def _giga(value: float | None) -> float | None:
    return None if value is None else value / 1e9


def _name(first: str, second: str) -> str:
    return first if first == second else f"{first} / {second}"


def _get(rows: dict[str, dict[str, Any]], key: str, field_name: str) -> Any:
    return rows[key][field_name] if key in rows else None


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _both(a: Side, b: Side, pairs: Pairs, part: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the rows of paired models that both scorecards have."""
    left, right = ({row["model"]: row for row in side.facts[part]} for side in (a, b))
    for first, second in pairs:
        if first in left and second in right:
            yield left[first], right[second]


def _test(a: Side, b: Side, one: dict[str, Any], two: dict[str, Any]) -> tuple[float | None, str]:
    """Return (two-sided p-value, name of the test)."""
    key = (one["task"], one["metric"])
    old, new = (_items(side, row).get(key) for side, row in ((a, one), (b, two)))
    paired = compare_items(old, new, one["suite"], *key) if old and new else None
    if paired is not None:
        return paired.p_value, paired.test
    errors = [row["stderr"] for row in (one, two)]
    if None in errors or not any(errors):
        return None, ""
    z = (two["value"] - one["value"]) / math.hypot(*errors)
    return math.erfc(abs(z) / math.sqrt(2)), "two samples"


def _items(side: Side, row: dict[str, Any]) -> dict[tuple[str, str], Items]:
    name = f"{row['model']}/{row['suite']}"
    result = side.found.benchmarks.get(name)
    return items_of(result, side.found.scores.get(name, {}), result.groups) if result else {}


def text_of(a: Side, b: Side, made: Sequence[Table]) -> list[str]:
    """Return the lines for the terminal."""
    lines = []
    for letter, side in (("A", a), ("B", b)):
        lines.append(
            f"{letter}  {side.path}: {side.facts['title']} (recipe {side.facts['recipe']}, seed {side.facts['seed']})"
        )
        lines += [f"   {side.note}"] if side.note else []
    for table in made:
        lines += ["", table.title]
        rows = [table.header, *table.rows] if table.rows else []
        widths = [max(len(row[i]) for row in rows) for i in range(len(table.header))] if rows else []
        for row in rows:
            cells = [
                c.ljust(w) if i < table.left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append(f"  {'  '.join(cells)}".rstrip())
        lines += [f"  {table.note}"] if table.note else []
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines]


def main(arguments: Sequence[str]) -> int:
    """Print the comparison, and write it as a page if asked; return 0, or 2 if a side can't be read."""
    parser = argparse.ArgumentParser(prog="python -m scripts.report compare", description=__doc__)
    parser.add_argument("a", type=Path, help="results/<recipe>, or a scorecard.json")
    parser.add_argument("b", type=Path, help="the same")
    parser.add_argument("--pair", action="append", default=[], metavar="MODEL_A=MODEL_B", help="models to compare")
    parser.add_argument("--page", type=Path, help="file to write a page with loss curves to")
    args = parser.parse_args(arguments)
    try:
        a, b = read_side(args.a), read_side(args.b)
        pairs = pair_models(a, b, args.pair)
        made = tables(a, b, pairs)
        print("\n".join(text_of(a, b, made)))
        if args.page is not None:
            from scripts.report.sidepage import difference_page  # a plotting library: only where it draws
            from scripts.report.volatile import write

            write(args.page, difference_page(a, b, pairs, made))
            print(f"\n{args.page}")
    except (ArtifactError, OSError, KeyError, TypeError) as error:
        print(
            error if isinstance(error, ArtifactError | OSError) else f"no scorecard of this version: {error!r}",
            file=sys.stderr,
        )
        return 2
    return 0
