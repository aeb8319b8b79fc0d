"""Votes in, ratings out: for the terminal, or as JSON."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.blind.agreement import alpha, equal_share, units_of, with_others
from scripts.blind.ratings import Rating, rate
from scripts.blind.votes import Judged, VotesError, find_key, read_votes
from scripts.recipe.ranks import kendall, spearman

MIN_CANDIDATES = 3
"""Two candidates always correlate perfectly."""
SHOWN_MEASURES = 20


def main(arguments: Sequence[str]) -> int:
    """Print what the testers found; return 0, or 1 where a file can't be read or doesn't belong here."""
    parser = argparse.ArgumentParser(prog="python -m scripts.blind score", description=__doc__)
    parser.add_argument("votes", type=Path, nargs="+", help="files that testers saved")
    parser.add_argument("--key", type=Path, help="key.json of the page (default: found below results/)")
    parser.add_argument("--json", action="store_true", help="all figures as one JSON value")
    parser.add_argument("--comments", action="store_true", help="print the comments too, with the names put back")
    args = parser.parse_args(arguments)
    try:
        keys = [args.key] if args.key else sorted(Path("results").glob("*/blind/key.json"))
        path, key = find_key(args.votes[0], keys)
        votes = read_votes(args.votes, key)
        measures = read_measures(path.parent.parent / "benchmark", key.candidates)
        found = figures(votes, key.candidates, measures)
    except VotesError as error:
        print(error, file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({"recipe": key.recipe, "test": key.test, **found}, indent=1, sort_keys=True))
        return 0
    print("\n".join(_table(key.recipe, len(key.comparisons), found)))
    if args.comments:
        print("\n".join(_comments(votes)))
    return 0


def figures(votes: Sequence[Judged], candidates: Sequence[str], measures: Mapping[str, Mapping[str, float]]) -> Any:
    """Return all figures as plain values.

    Args:
        votes: at least one with a choice.
        candidates: their names.
        measures: {measure: {candidate: value}} of the benchmarks.

    Raises:
        VotesError: no vote has a choice.
    """
    chosen = [vote for vote in votes if vote.choice]
    if not chosen:
        raise VotesError("no votes in these files; testers choose before they save")
    ratings, units = rate(chosen, candidates), units_of(chosen)
    decided = [vote.share for vote in chosen if vote.share != 0.5]
    shared, equal = equal_share(units)
    return {
        "votes": len(chosen),
        "conversations": len({vote.conversation for vote in chosen}),
        "comparisons": len(units),
        "neither_good": sum(vote.choice == "neither" for vote in chosen),
        "left_share": sum(decided) / len(decided) if decided else None,
        "ratings": [asdict(rating) for rating in ratings],
        "alpha": alpha(units),
        "shared_comparisons": shared,
        "equal_share": equal,
        "testers": {name: {"votes": n, "equal": same} for name, (n, same) in with_others(units).items()},
        "correlations": correlations(ratings, measures),
    }


def correlations(ratings: Sequence[Rating], measures: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return the rank correlation of the ratings with each measure that MIN_CANDIDATES candidates have, largest first.

    With so few candidates they describe; n is stated, no significance is claimed.
    """
    value = {rating.candidate: rating.value for rating in ratings}
    rows = []
    for name, by_candidate in measures.items():
        both = [candidate for candidate in value if candidate in by_candidate]
        if len(both) >= MIN_CANDIDATES:
            a, b = [value[c] for c in both], [by_candidate[c] for c in both]
            rows.append(
                {"measure": name, "candidates": len(both), "spearman": spearman(a, b), "kendall": kendall(a, b)}
            )
    return sorted(rows, key=lambda row: (-abs(row["spearman"] or 0.0), row["measure"]))


def read_measures(folder: Path, candidates: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return {"suite: task, metric": {candidate: value}} of all finished benchmarks of the candidates.

    Raises:
        VotesError: a `results.json` of another form.
    """
    found: dict[str, dict[str, float]] = {}
    for candidate in candidates:
        for path in sorted((folder / candidate).glob("*/results.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                for task, row in content["tasks"].items():
                    for metric, figure in row["metrics"].items():
                        name = f"{content['suite']}: {task}, {metric}"
                        found.setdefault(name, {})[candidate] = float(figure["value"])
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise VotesError(f"{path}: not the results of a benchmark ({error!r}); build it again") from None
    return found


def _table(recipe: str, comparisons: int, found: Mapping[str, Any]) -> list[str]:
    testers = found["testers"]
    lines = [
        f"blind test of {recipe}: {found['votes']} votes of {len(testers)} testers on {found['comparisons']} of "
        f"{comparisons} comparisons, {found['conversations']} conversations",
        f"left was preferred in {_percent(found['left_share'])} of the decided votes; neither was good in "
        f"{_percent(found['neither_good'] / found['votes'])} of all",
        "",
    ]
    rows = [["candidate", "rating", "95 % interval", "won", "lost", "tied"]]
    for r in found["ratings"]:
        span = "-" if r["low"] is None else f"{r['low']:+.0f} .. {r['high']:+.0f}"
        rows.append([r["candidate"], f"{r['value']:+.0f}", span, *(str(r[k]) for k in ("won", "lost", "tied"))])
    lines += _aligned(rows)
    lines += ["Bradley-Terry, on the scale of Elo (400 points: odds of 10 to 1), mean 0; a tie is half a win for both;"]
    lines += ["intervals by bootstrap over conversations", ""]
    if found["equal_share"] is None:
        lines += ["agreement: no comparison was voted on twice"]
    else:
        lines += [
            f"agreement: Krippendorff's alpha {_number(found['alpha'])} (0 by chance, 1 always), "
            f"{_percent(found['equal_share'])} of pairs of votes equal, {found['shared_comparisons']} comparisons"
        ]
        rows = [["tester", "votes", "equal to others"]]
        rows += [[name, str(row["votes"]), _percent(row["equal"])] for name, row in testers.items()]
        lines += _aligned(rows)
    return [*lines, "", *_correlation_lines(found["correlations"])]


def _correlation_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return [f"no measure of the benchmarks is known for {MIN_CANDIDATES} candidates"]
    table = [["rank correlation of the rating with", "candidates", "Spearman", "Kendall"]]
    table += [
        [row["measure"], str(row["candidates"]), _number(row["spearman"]), _number(row["kendall"])]
        for row in rows[:SHOWN_MEASURES]
    ]
    more = [f"... {len(rows) - SHOWN_MEASURES} more with --json"] if len(rows) > SHOWN_MEASURES else []
    return [*_aligned(table), *more, "Negative where less of a measure is better, such as bits per byte."]


def _comments(votes: Sequence[Judged]) -> list[str]:
    said = [v for v in votes if v.comment]
    lines = [
        f"{v.tester} on {v.conversation}, A {v.left}, B {v.right}, {v.choice or 'no vote'}: {v.comment}" for v in said
    ]
    return ["", f"{len(said)} comments", *map(_printable, lines)]


def _printable(text: str) -> str:
    """A comment or name may hold anything; an escape sequence in it must not reach the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))) for r in rows
    )
    return [_printable(line).rstrip() for line in lines]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
