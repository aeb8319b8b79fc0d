"""Benchmark results in the forms that others read: the announcement's tables, `model-index`, `.eval_results/`.

Everything comes from `scorecard.json`, so an export can be made again at any time, and holds no date.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

Row = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Write `<out>/<model>/benchmarks.md`, `model-index.yaml` and `.eval_results/<suite>.yaml` of every model.

    Returns:
        0; 1 if the scorecard can't be read; 2 if there is none or it holds no benchmark.
    """
    parser = argparse.ArgumentParser(prog="python -m scripts.report export", description=__doc__)
    parser.add_argument("results", type=Path, help="folder results/<recipe>")
    parser.add_argument("out", type=Path, help="folder to write to")
    args = parser.parse_args(arguments)
    path = args.results / "report" / "scorecard.json"
    if not path.is_file():
        print(f"{path}: not there; build the report first: snakemake report", file=sys.stderr)
        return 2
    try:
        files = export_files(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{path}: not a scorecard of this version ({type(error).__name__}: {error}); rebuild it", file=sys.stderr)
        return 1
    if not files:
        print(f"{path}: holds no benchmark; name suites and models under `benchmark` in the recipe", file=sys.stderr)
        return 2
    for name, text in files.items():
        target = args.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        print(target)
    return 0


def export_files(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return {relative path: text} of all exports of a scorecard."""
    files = {}
    for model in dict.fromkeys(row["model"] for row in facts["benchmarks"]):
        rows = [row for row in facts["benchmarks"] if row["model"] == model]
        files[f"{model}/benchmarks.md"] = markdown(model, rows, facts["suites"])
        files[f"{model}/model-index.yaml"] = _yaml({"model-index": [_model_index(model, rows, facts["suites"])]})
        for suite in dict.fromkeys(row["suite"] for row in rows):
            entries = _eval_results([row for row in rows if row["suite"] == suite], facts["suites"])
            if entries:
                files[f"{model}/.eval_results/{suite}.yaml"] = _yaml(entries)
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


def _model_index(model: str, rows: Sequence[Row], suites: Mapping[str, Any]) -> Row:
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


def _eval_results(rows: Sequence[Row], suites: Mapping[str, Any]) -> list[Row]:
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


def _yaml(content: object) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
