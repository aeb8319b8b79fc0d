"""Benchmark results in the forms that others read: the announcement's tables, `model-index`, `.eval_results/`.

A row is one of `scorecard.json`'s `benchmarks`; a suite is `SuiteFacts` as a table. Nothing here holds a date.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import yaml

from scripts.recipe.card import inert
from scripts.recipe.footnotes import Footnotes, metric_remarks, task_remarks

Row = dict[str, Any]
_MAIN = "acc_norm"
"""The metric that both leaderboards of the announcement print of a task that has it."""


def export_files(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return {relative path: text} of all exports of a scorecard."""
    files = {}
    for model in dict.fromkeys(row["model"] for row in facts["benchmarks"]):
        rows = [row for row in facts["benchmarks"] if row["model"] == model]
        files[f"{model}/benchmarks.md"] = markdown(model, rows, facts["suites"])
        files[f"{model}/model-index.yaml"] = as_yaml({"model-index": [model_index(model, rows, facts["suites"])]})
        for suite, entries in eval_results(rows, facts["suites"]).items():
            files[f"{model}/.eval_results/{suite}.yaml"] = as_yaml(entries)
    return files


def markdown(model: str, rows: Sequence[Row], suites: Mapping[str, Any]) -> str:
    """Return one table a suite, in the announcement's columns; `Version` is the protocol."""
    lines = [f"#### {inert(model)}", ""]
    for suite, members in groupby(rows, key=lambda row: row["suite"]):
        title, notes = suites[suite]["title"] if suite in suites else suite, Footnotes()
        lines += [f"**{inert(title)}**", ""]
        lines += ["| Task | Version | Metric | Value |     | Stderr |", "| --- | --: | --- | --: | --- | --: |"]
        before = ""
        for row in members:
            published = row["published"] or {}
            task = published.get("name") or row["task"]
            label = ("", "")
            if task != before:
                label = (inert(task) + notes.marks(task_remarks(row)), inert(row["protocol"]))
            stderr = f"± | {row['stderr']:.4f}" if row["stderr"] is not None else " | "
            metric = inert(row["metric"]) + notes.marks(metric_remarks(row))
            lines.append(f"| {label[0]} | {label[1]} | {metric} | {row['value']:.4f} | {stderr} |")
            before = task
        lines += [*notes.lines(), ""]
    return "\n".join(lines)


def _source(row: Row, suites: Mapping[str, Any]) -> Mapping[str, str] | None:
    data = suites.get(row["suite"], {}).get("data", {})
    if row["task"] in data:
        found: Mapping[str, str] = data[row["task"]]
        return found
    members = [source for task, source in data.items() if task.startswith(f"{row['task']}_")]
    return members[0] if members else None


def _settings(row: Row, unit: str = "") -> str:
    """Return in words how a figure came about and what is wrong with it: the hub's forms have no other field for it."""
    bos = {True: ", with BOS", False: ", without BOS", None: ""}[row["bos"]]
    # `bits_per_byte/<source>` and `words/turn_2` are about a part of the items, whose number isn't recorded.
    counted = row["items"] is not None and "/" not in row["metric"]
    said = f"protocol {row['protocol'] or row['suite']}, {row['shots']}-shot{bos}, {row['metric']}{unit}"
    said += f", N = {row['items']}" if counted else ""
    return " ".join([f"{said}.", *metric_remarks(row), *task_remarks(row)]) if _remarked(row) else said


def _remarked(row: Row) -> bool:
    return bool(metric_remarks(row) or task_remarks(row))


def model_index(model: str, rows: Sequence[Row], suites: Mapping[str, Any]) -> Row:
    """Return the entry of `model-index` that the hub reads from a card's front matter.

    huggingface_hub joins results of one dataset type, config, split and revision when it writes a card again, and then
    keeps the first name only: so `config` names suite and task, of which two can share a data set's revision.
    """
    results = []
    for (suite, task), members in groupby(rows, key=lambda row: (row["suite"], row["task"])):
        lines = list(members)
        source = _source(lines[0], suites)
        dataset: Row = {"name": task, "type": source["dataset"] if source else suite, "config": f"{suite}/{task}"}
        if source and source["revision"]:
            dataset["revision"] = source["revision"]
        dataset["args"] = {"protocol": lines[0]["protocol"] or suite, "num_few_shot": lines[0]["shots"]}
        metrics = [
            {"type": row["metric"], "value": round(row["value"], 6), "name": _settings(row), "verified": False}
            for row in lines
        ]
        results.append({"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics})
    return {"name": model, "results": results}


def eval_results(rows: Sequence[Row], suites: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Return {suite: entries} for the tasks whose data lies on the hub: the form names a data set there.

    An entry has no field for its metric, so a task of a data set has one entry, of its main metric; where two suites
    measure it, the recipe's first one says how.
    """
    found: dict[str, list[Row]] = {}
    named: set[tuple[str, str]] = set()
    for (suite, task), members in groupby(rows, key=lambda row: (row["suite"], row["task"])):
        lines = list(members)
        source = _source(lines[0], suites)
        if source is None or "/" not in source["dataset"] or (source["dataset"], task) in named:
            continue
        named.add((source["dataset"], task))
        row = next((line for line in lines if line["metric"] == _MAIN), lines[0])
        dataset = {"id": source["dataset"], "task_id": task}
        if source["revision"]:
            dataset["revision"] = source["revision"]
        notes = _settings(row, " as a share of 1 (0 to 1)")
        found.setdefault(suite, []).append({"dataset": dataset, "value": round(row["value"], 6), "notes": notes})
    return found


def as_yaml(content: object) -> str:
    """Return block YAML, keys in their order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
