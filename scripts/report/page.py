"""The page: figures and payloads put into the templates, every value escaped."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from scripts.recipe.report import ReportSpec
from scripts.report import figures
from scripts.report.correlations import MIN_MODELS
from scripts.report.formats import style, template
from scripts.report.lineage import NODE_HEIGHT, NODE_WIDTH, draw, parents_of
from scripts.report.measured import Measured
from scripts.report.notes import Remark, remarks
from scripts.report.payloads import Episode, Payloads

MAX_TURN_CHARS = 600
"""A sample's turn is cut here: five whole logs of ten sources would fill the page's 5 MB."""
MAX_TURNS = 6
_CLEAR = 0.5
"""Rank correlations further from 0 get a colour."""
MAX_FILES = 40
"""Files listed of one artifact; a release of three shards has a dozen."""


def render(spec: ReportSpec, found: Payloads, facts: Mapping[str, Any], measured: Measured | None = None) -> str:
    """Return the whole page.

    Args:
        spec: the recipe's part.
        found: all payloads.
        facts: the figures of `scorecard.json`.
        measured: times, speed, memory and machine. Without it nothing in the page depends on these: the artifact.
    """
    parents = parents_of(spec.lineage, spec.models)
    graph = draw(_made_into_models(parents, spec), found.values | (measured.values if measured else {}))
    rows = _artifacts(spec, found, parents, measured, [node.artifact for node in graph.nodes])
    return template("page.html.j2").render(
        facts=facts,
        spec=spec,
        measured=measured,
        style=style(),
        models=_models(spec, facts),
        samples=_samples(spec, found),
        lengths={name: figures.length_chart(name, audit) for name, audit in found.audits.items()},
        curves={name: figures.curves(name, run) for name, run in found.trainings.items()},
        speeds={n: figures.speed_curves(n, s) for n, s in measured.speeds.items()} if measured else {},
        maps={name: figures.heat_maps(name, merge) for name, merge in found.merges.items()},
        tasks=_by_task(facts["benchmarks"], facts["suites"]),
        groups=facts["benchmark_groups"],
        pairs=_pairs(facts["benchmark_pairs"]),
        bits=_bits_tables(facts["bits_per_byte"]),
        role_play=_role_play(facts["role_play"]),
        correlations=_matrix(facts["rank_correlations"]),
        graph=graph,
        artifacts=rows,
        known={row["artifact"] for row in rows},
        node=(NODE_WIDTH, NODE_HEIGHT),
    )


def _models(spec: ReportSpec, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each model of the recipe's table."""
    values = {row["artifact"]: row["value"] for row in facts["artifacts"]}
    trained = {row["model"]: row for row in facts["trainings"]}
    bits: dict[str, float | None] = {}
    for row in facts["bits_per_byte"]:
        bits.setdefault(row["model"], row["value"])
    return [
        {
            "model": name,
            "kind": kind,
            "parents": parents,
            "training": trained.get(name),
            "bits": bits.get(name),
            "artifact": f"{kind}/{name}",
            "value": values.get(f"{kind}/{name}", ""),
        }
        for name, (kind, *parents) in spec.models.items()
    ]


def _samples(spec: ReportSpec, found: Payloads) -> list[dict[str, Any]]:
    """Return what may be shown of each source's samples; the page may be published, so not every text may."""
    rows = []
    for name, sample in found.samples.items():
        facts = spec.sources.get(name)
        hidden = "" if facts and facts.redistributable else "its rows may not be published again"
        kept = [_episode(e) for e in sample.kept if e.label != "adult"]
        refused = {r: texts for r, texts in sample.rejected.items() if texts and "adult" not in r}
        withheld = len(sample.kept) - len(kept)
        shown = {"kept": [], "rejected": {}} if hidden else {"kept": kept, "rejected": refused}
        rows.append({"source": name, "hidden": hidden, "withheld": 0 if hidden else withheld, **shown})
    return rows


def _episode(episode: Episode) -> dict[str, Any]:
    turns = [("system", episode.system)] if episode.system else []
    turns += [(turn.role, turn.text) for turn in episode.turns]
    return {
        "id": episode.id,
        "more": max(0, len(turns) - MAX_TURNS),
        "turns": [
            {"role": role, "text": text[:MAX_TURN_CHARS], "more": max(0, len(text) - MAX_TURN_CHARS)}
            for role, text in turns[:MAX_TURNS]
        ],
    }


def _role_play(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return measures down, models across."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    table: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["task"], row["metric"])):
        table.setdefault((row["task"], row["metric"]), {})[row["model"]] = row
    lines = [
        {
            "task": task,
            "metric": metric,
            "chance": next(iter(cells.values()))["chance"],
            "items": next(iter(cells.values()))["items"],
            "cells": [cells.get(model) for model in models],
        }
        for (task, metric), cells in table.items()
    ]
    blocks = [
        (task, list(group), remarks([row for row in rows if row["task"] == task]))
        for task, group in groupby(lines, lambda x: x["task"])
    ]
    return {"models": models, "blocks": blocks}


def _matrix(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return rank correlations with measures down and benchmarks across."""
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    cells = {(row["measure"], row["benchmark"]): row for row in rows}
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    ways = {row["measure"]: row["direction"] for row in rows}
    lines = [(m, ways[m], [_cell(cells[(m, b)]) for b in benchmarks]) for m in measures]
    counts = sorted({row["models"] for row in rows if row["models"] >= MIN_MODELS})
    return {"benchmarks": benchmarks, "lines": lines, "models": counts, "least": MIN_MODELS}


def _cell(row: dict[str, Any]) -> dict[str, Any]:
    """Return a correlation with its colour, or why there is none."""
    rho = row["spearman"]
    if rho is None:
        missing = "all alike" if row["models"] >= MIN_MODELS else f"n = {row['models']}"
        return {**row, "missing": missing, "colour": ""}
    # A measure that only describes agrees with nobody on which model is better.
    clear = row["direction"] and abs(rho) > _CLEAR
    return {**row, "missing": "", "colour": ("plus" if rho > 0 else "minus") if clear else ""}


def _artifacts(
    spec: ReportSpec,
    found: Payloads,
    parents: Mapping[str, Sequence[str]],
    measured: Measured | None,
    drawn: Sequence[str],
) -> list[dict[str, Any]]:
    """Return every artifact, sources first and benchmarks' data last, with what it was made from and its files."""
    values = found.values | (measured.values if measured else {})
    files = found.files | (measured.files if measured else {})
    sizes = {run.artifact: run.size_bytes for run in measured.runs} if measured else {}
    known = [*parents, *(parent for reads in parents.values() for parent in reads)]
    downloads = [name for name in known if name.startswith("download/")]
    shown = list(dict.fromkeys([*(name for name in downloads if name in drawn), *found.values, *downloads]))
    rows = []
    for name in shown:
        listed = sorted(files.get(name, {}).items())
        stage, _, rest = name.partition("/")
        rows.append(
            {
                "artifact": name,
                "stage": stage,
                "name": rest or stage,
                "value": values.get(name, ""),
                "place": spec.places.get(rest, "") if stage == "download" else "",
                "parents": [(parent, parent in shown) for parent in parents.get(name, ())],
                "files": listed[:MAX_FILES],
                "more": max(0, len(listed) - MAX_FILES),
                "size": sizes.get(name),
            }
        )
    return rows


def _by_task(rows: Sequence[dict[str, Any]], suites: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Group benchmark rows: one table a suite, one block a task and metric, one line a model."""

    tables = []
    for suite in dict.fromkeys(row["suite"] for row in rows):
        mine = [row for row in rows if row["suite"] == suite]
        tables.append(
            {
                "suite": suite,
                "title": suites[suite]["title"] if suite in suites else suite,
                "protocol": mine[0]["protocol"],
                "published": any(row["published"] for row in mine),
                "blocks": _blocks(mine),
            }
        )
    return tables


def _blocks(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]], list[Remark]]]:
    """Return (task, metric, a row a model, remarks), in order; a task's first block has its remarks."""
    blocks: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        blocks.setdefault((row["task"], row["metric"]), []).append(row)
    seen: set[str] = set()
    found = []
    for (task, metric), lines in blocks.items():
        found.append((task, metric, lines, [] if task in seen else remarks([r for r in rows if r["task"] == task])))
        seen.add(task)
    return found


def _pairs(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Return paired tests by (first, second), in the order in which the pairs come."""
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        pairs.setdefault((row["first"], row["second"]), []).append(row)
    return [(first, second, found) for (first, second), found in pairs.items()]


def _bits_tables(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one table a task: sources down, models across."""
    tables = []
    for suite, task in dict.fromkeys((row["suite"], row["task"]) for row in rows):
        mine = [row for row in rows if (row["suite"], row["task"]) == (suite, task)]
        sources = list(dict.fromkeys(source for row in mine for source in row["sources"]))
        lines = [
            ("all sources", [(row["value"], row["interval"]) for row in mine]),
            *((s, [(row["sources"].get(s), row["intervals"].get(s)) for row in mine]) for s in sources),
        ]
        best = [min((v for v, _ in values if v is not None), default=None) for _, values in lines]
        table = [(name, values, least) for (name, values), least in zip(lines, best, strict=True)]
        said = {"models": [row["model"] for row in mine], "remarks": remarks(mine)}
        tables.append({"suite": suite, "task": task, **said, "lines": table})
    return tables


def _made_into_models(parents: Mapping[str, Sequence[str]], spec: ReportSpec) -> dict[str, list[str]]:
    """Return the part of the graph that leads to models: measuring a model is no part of its lineage."""
    wanted: set[str] = set()
    waiting = [f"{facts[0]}/{name}" for name, facts in spec.models.items()]
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting.extend(_origins(name, parents))
    return {name: _origins(name, parents) for name in parents if name in wanted}


def _origins(name: str, parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what an artifact is made from: of a cleaned source its download, not the benchmarks it may not quote."""
    reads = parents.get(name, ())
    return list(reads[:1] if name.startswith("clean/") else reads)
