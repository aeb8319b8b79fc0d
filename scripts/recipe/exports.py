"""Benchmark results in the forms that others read: the announcement's tables, `model-index`, `.eval_results/`.

A row is one of `scorecard.json`'s `benchmarks`; a suite is `SuiteFacts` as a table. Nothing here holds a date.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import yaml

Row = dict[str, Any]


def export_files(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return {relative path: text} of all exports of a scorecard."""
    files = {}
    for model in dict.fromkeys(row["model"] for row in facts["benchmarks"]):
        rows = [row for row in facts["benchmarks"] if row["model"] == model]
        files[f"{model}/benchmarks.md"] = markdown(model, rows, facts["suites"])
        files[f"{model}/model-index.yaml"] = as_yaml({"model-index": [model_index(model, rows, facts["suites"])]})
        for suite in dict.fromkeys(row["suite"] for row in rows):
            entries = eval_results([row for row in rows if row["suite"] == suite], facts["suites"])
            if entries:
                files[f"{model}/.eval_results/{suite}.yaml"] = as_yaml(entries)
    return files


def markdown(model: str, rows: Sequence[Row], suites: Mapping[str, Any]) -> str:
    """Return one table a suite, in the announcement's columns; `Version` is the protocol."""
    lines = [f"#### {model}", ""]
    for suite, members in groupby(rows, key=lambda row: row["suite"]):
        title = suites[suite]["title"] if suite in suites else suite
        lines += [f"**{title}**", ""]
        lines += ["| Task | Version | Metric | Value |     | Stderr |", "| --- | --: | --- | --: | --- | --: |"]
        before = ""
        for row in members:
            published = row["published"] or {}
            task = published.get("name") or row["task"]
            first = task != before
            stderr = f"± | {row['stderr']:.4f}" if row["stderr"] is not None else " | "
            label = (task, row["protocol"]) if first else ("", "")
            lines.append(f"| {label[0]} | {label[1]} | {row['metric']} | {row['value']:.4f} | {stderr} |")
            before = task
        lines.append("")
    return "\n".join(lines)


def _source(row: Row, suites: Mapping[str, Any]) -> Mapping[str, str] | None:
    data = suites.get(row["suite"], {}).get("data", {})
    if row["task"] in data:
        found: Mapping[str, str] = data[row["task"]]
        return found
    members = [source for task, source in data.items() if task.startswith(f"{row['task']}_")]
    return members[0] if members else None


def _settings(row: Row) -> str:
    bos = {True: ", with BOS", False: ", without BOS", None: ""}[row["bos"]]
    return f"protocol {row['protocol'] or row['suite']}, {row['shots']}-shot{bos}, {row['metric']}, N = {row['items']}"


def model_index(model: str, rows: Sequence[Row], suites: Mapping[str, Any]) -> Row:
    """Return the entry of `model-index` that the hub reads from a card's front matter."""
    results = []
    for (suite, task), members in groupby(rows, key=lambda row: (row["suite"], row["task"])):
        lines = list(members)
        source = _source(lines[0], suites)
        dataset: Row = {"name": task, "type": source["dataset"] if source else suite}
        if source and source["revision"]:
            dataset["revision"] = source["revision"]
        metrics = [
            {"type": row["metric"], "value": round(row["value"], 6), "name": _settings(row), "verified": False}
            for row in lines
        ]
        results.append({"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics})
    return {"name": model, "results": results}


def eval_results(rows: Sequence[Row], suites: Mapping[str, Any]) -> list[Row]:
    """Return entries for the rows whose data lies on the hub: the form names a data set there."""
    entries = []
    for row in rows:
        source = _source(row, suites)
        if source is not None and "/" in source["dataset"]:
            dataset = {"id": source["dataset"], "task_id": row["task"]}
            if source["revision"]:
                dataset["revision"] = source["revision"]
            entries.append({"dataset": dataset, "value": round(row["value"], 6), "notes": _settings(row)})
    return entries


def as_yaml(content: object) -> str:
    """Return block YAML, keys in their order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
