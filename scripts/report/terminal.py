"""The scorecard for the terminal: one screen after `make demo`, plain text, also through a pipe."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.artifact.digest import FACTS, ArtifactError
from scripts.artifact.lock import entries_of, read_lock
from scripts.artifact.places import artifact_folders
from scripts.artifact.record import read_record
from scripts.artifact.verify import Fault, check_tree
from scripts.recipe.base import STAGES
from scripts.report.numbers import fixed, percent

MAX_LINES, MAX_COLUMNS = 60, 100
_NAME = 16
"""Longest name in a column of figures."""
_TASK = 24
"""Longest name of a task, unless more is needed to tell two apart."""
_SHOWN_FAULTS = 10


@dataclass
class Section:
    """A heading, a table whose first row is its header, and what to say below it."""

    title: str
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""


def main(arguments: Sequence[str]) -> int:
    """Print the scorecard of one recipe's results.

    Returns:
        0; 1 if an artifact is damaged or a file can't be read; 2 if there is nothing to show.
    """
    parser = argparse.ArgumentParser(prog="python -m scripts.report scorecard", description=__doc__)
    parser.add_argument("results", type=Path, help="folder results/<recipe>")
    parser.add_argument(
        "--lock", type=Path, help="lock to compare with (default: locks/<recipe>.lock, if there is one)"
    )
    parser.add_argument("--fast", action="store_true", help="trust files whose stat has not changed since hashing")
    args = parser.parse_args(arguments)
    path = args.results / "report" / "scorecard.json"
    if not path.is_file():
        print(f"{path}: not there; build the report first: make demo, or snakemake with this recipe", file=sys.stderr)
        return 2
    faults: list[Fault] = []
    try:
        checked = list(check_tree(args.results, deep=not args.fast, threads=os.cpu_count() or 1))
        faults = [fault for _, found in checked for fault in found]
        lines = compose(json.loads(path.read_text(encoding="utf-8")), args.results, args.lock, checked)
    except (ArtifactError, OSError, ValueError, KeyError, TypeError) as error:
        # The report's own file comes first among the faults: say what is damaged, not where reading stumbled.
        print("\n".join(map(str, faults)) or f"{path}: {error}", file=sys.stderr)
        return 1
    encoding = sys.stdout.encoding or "utf-8"
    print("\n".join(lines).encode(encoding, "replace").decode(encoding))
    for fault in faults[:_SHOWN_FAULTS]:
        print(fault, file=sys.stderr)
    if len(faults) > _SHOWN_FAULTS:
        print(f"{len(faults) - _SHOWN_FAULTS} more: python -m scripts.artifact verify {args.results}", file=sys.stderr)
    return 1 if faults else 0


def compose(
    facts: dict[str, Any], results: Path, lock: Path | None, checked: Sequence[tuple[Path, list[Fault]]]
) -> list[str]:
    """Return the lines of the scorecard: at most 60, and 100 columns unless a path is longer.

    Args:
        facts: content of `scorecard.json`.
        results: folder of the recipe's results.
        lock: lock to compare with; None means the recipe's own, if there is one.
        checked: every artifact with its faults.
    """
    damaged = sum(1 for _, faults in checked if faults)
    own_lock = Path("locks") / f"{facts['recipe']}.lock"
    head = [
        f"{facts['title']} (recipe {facts['recipe']}, seed {facts['seed']})",
        "",
        f"artifacts  {len(checked)} built, {len(checked) - damaged} verified, {damaged} with faults",
        *_against_lock(results, lock or own_lock, lock is not None),
        f"report     {_page(results)}",
    ]
    sections = [_mixtures(facts), _trainings(facts), _merges(facts), _benchmarks(facts), _bits(facts), _times(results)]
    sections = [section for section in sections if len(section.rows) > 1]
    _fit(sections, MAX_LINES - len(head))
    # Paths stay whole, however long: a cut one is of no use.
    head = [_printable(line) for line in head]
    lines = []
    for section in sections:
        lines += ["", section.title, *_aligned(section.rows)]
        lines += [f"  {section.note}"] if section.note else []
    return head + [_printable(line)[:MAX_COLUMNS].rstrip() for line in lines]


def _page(results: Path) -> Path:
    """Return the page to open: the one with times and speed, where it was drawn."""
    whole = results / "report.html"
    return whole if whole.is_file() else results / "report" / "index.html"


def _printable(text: str) -> str:
    """A title may hold anything; an escape sequence in it must not reach the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _against_lock(results: Path, lock: Path, asked: bool) -> list[str]:
    if not lock.is_file():
        if asked:
            raise ArtifactError(f"{lock}: no such lock")
        return [f"lock       none yet ({lock}); make lock writes it"]
    locked = {(e.stage, e.name): e.value for e in read_lock(lock)}
    built = {(e.stage, e.name): e.value for e in entries_of(results)}
    differing = ["/".join(filter(None, a)) for a, value in built.items() if locked.get(a) != value]
    absent = ["/".join(filter(None, a)) for a in locked if a not in built]
    lines = [f"lock       {len(built) - len(differing)} of {len(built)} artifacts equal {lock}"]
    lines += [f"           {len(differing)} differ, the first: {differing[0]}"] if differing else []
    return lines + ([f"           {len(absent)} of the lock not built, the first: {absent[0]}"] if absent else [])


def _fit(sections: list[Section], budget: int) -> None:
    """Cut the longest tables, a row at a time, until all fit; say how much the report holds beside."""

    def lines() -> int:
        return sum(2 + len(section.rows) + bool(section.note) for section in sections)

    cut: dict[int, int] = {}
    while lines() > budget and sections:
        index = max(range(len(sections)), key=lambda i: len(sections[i].rows))
        if len(sections[index].rows) <= 2:
            sections.pop()
            continue
        sections[index].rows.pop()
        cut[index] = cut.get(index, 0) + 1
        sections[index].note = f"... {cut[index]} more rows in the report"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Return table lines: first column left, the others right, except the last if it is text."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    return [
        "  "
        + "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=False)))
        for row in rows
    ]


def _name(text: str, width: int = _NAME) -> str:
    return text if len(text) <= width else f"{text[: width - 2]}.."


def _shortened(text: str, width: int) -> str:
    """Cut the middle out: names of one family differ at their ends."""
    head = width // 3
    return text if len(text) <= width else f"{text[:head]}..{text[len(text) - width + head + 2 :]}"


def _task_names(tasks: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return a name for each (suite, task): with the suite where two have the task, as short as tells all apart."""
    unique = list(dict.fromkeys(tasks))
    times = Counter(task for _, task in unique)
    full = {(suite, task): f"{suite}: {task}" if times[task] > 1 else task for suite, task in unique}
    width = _TASK
    while len({_shortened(name, width) for name in full.values()}) < len(set(full.values())):
        width += 1
    return {key: _shortened(name, width) for key, name in full.items()}


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else fixed(value, digits)


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _mixtures(facts: dict[str, Any]) -> Section:
    rows = [["source", "rows in", "train", "held out", "share %", "target %"]]
    for mixture in facts["mixtures"]:
        for s in mixture["sources"]:
            name = f"{mixture['mixture']}: {s['source']}"
            figures = [f"{s[key]:,}" for key in ("episodes_in", "rows_train", "rows_validation")]
            rows.append([_name(name, 40), *figures, _share(s["share_percent"]), _share(s["target_percent"])])
    missing = sorted({name for mixture in facts["mixtures"] for name in mixture["missing_sources"]})
    return Section("mixture", rows, f"without {', '.join(missing)}" if missing else "")


def _trainings(facts: dict[str, Any]) -> Section:
    rows = [["model", "base", "steps", "tokens", "loss before", "after", "lowest"]]
    for run in facts["trainings"]:
        losses = [_number(run[key]) for key in ("first_eval_loss", "published_eval_loss", "best_eval_loss")]
        rows.append(
            [_name(run["model"], 30), _name(run["base"]), f"{run['steps']:,}", f"{run['train_tokens']:,}", *losses]
        )
    return Section("training (evaluation loss, nats a token)", rows)


def _merges(facts: dict[str, Any]) -> Section:
    rows = [["tensors", "layers", "r first", "r last"]]
    pairs = [f"{m['model']} = {_formula(m)}" for m in facts["merges"]]
    for merge in facts["merges"]:
        prefix = f"{merge['model']}: " if len(pairs) > 1 else ""
        for p in merge["projections"]:
            ratios = [_number(p["first_ratio"]), _number(p["last_ratio"])]
            rows.append([_name(prefix + p["projection"], 44), str(p["layers"] or "-"), *ratios])
    return Section("merge  " + "; ".join(pairs), rows)


def _formula(merge: dict[str, Any]) -> str:
    first, second = merge["models"][:2]
    # Scorecards of older versions name no method.
    return f"slerp({first}, {second}; r)" if merge.get("method") == "slerp" else f"(1 - r) {first} + r {second}"


def _across(models: Sequence[str], labels: Sequence[str], used: int) -> list[str]:
    """Return the models whose columns fit beside the labels and `used` further columns of text."""
    left, shown = MAX_COLUMNS - used - max(map(len, labels), default=0), 0
    for model in models:
        left -= 2 + max(len(_name(model)), 8)
        shown += left >= 0
    return list(models)[: max(1, shown)]


def _benchmarks(facts: dict[str, Any]) -> Section:
    models = list(dict.fromkeys(row["model"] for row in facts["benchmarks"]))
    table: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in facts["benchmarks"]:
        table.setdefault((row["suite"], row["task"], row["metric"]), {})[row["model"]] = row
    names = _task_names([(suite, task) for suite, task, _ in table])
    labels = [f"{names[(suite, task)]} {_name(metric, 12)}" for suite, task, metric in table]
    shown = _across(models, labels, used=2 + 2 + 6)
    rows = [["task", "chance", *(_name(m) for m in shown)]]
    for label, cells in zip(labels, table.values(), strict=True):
        values = [
            _number(cells[m]["value"]) + ("~" if cells[m]["at_chance"] else " ") if m in cells else "- " for m in shown
        ]
        chance = next(iter(cells.values()))["chance"]
        rows.append([label, _number(chance), *values])
    more = f"; {len(models) - len(shown)} more models in the report" if len(models) > len(shown) else ""
    return Section(f"benchmarks (~ not distinguishable from guessing{more})", rows)


def _bits(facts: dict[str, Any]) -> Section:
    models = list(dict.fromkeys(row["model"] for row in facts["bits_per_byte"]))
    by_model: dict[str, dict[str, Any]] = {}
    for row in facts["bits_per_byte"]:
        by_model.setdefault(row["model"], row)
    sources = list(dict.fromkeys(s for row in by_model.values() for s in row["sources"]))
    shown = _across(models, [_name(s, 24) for s in sources], used=2)
    rows = [["source", *(_name(m) for m in shown)], ["all", *(_number(by_model[m]["value"]) for m in shown)]]
    rows += [[_name(s, 24), *(_number(by_model[m]["sources"].get(s)) for m in shown)] for s in sources]
    return Section("held-out bits per byte (lower is better)", rows if models else [])


def _times(results: Path) -> Section:
    seconds: dict[str, list[float]] = {}
    for folder in artifact_folders(results):
        stage = folder.relative_to(results).parts[0]
        if (folder / FACTS).is_file():
            seconds.setdefault(stage, []).append(float(read_record(folder / FACTS).get("seconds", 0.0)))
    stages = [stage for stage in STAGES if stage in seconds]
    total = sum(sum(times) for times in seconds.values())
    rows = [
        ["stage", *stages, "total"],
        ["jobs", *(str(len(seconds[s])) for s in stages), str(sum(map(len, seconds.values())))],
    ]
    rows.append(["seconds", *(_number(sum(seconds[s]), 1) for s in stages), _number(total, 1)])
    return Section("time (sum over jobs; they ran side by side where cores allowed)", rows if stages else [])
