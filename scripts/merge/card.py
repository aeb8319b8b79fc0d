"""The model card: what was merged from what, by which ratios, and how anyone can check it.

Only what the artifact's key fixes stands here: digests of the two inputs, names of what lies before them. Digests of
those earlier steps go to `artifact.json`, since an input of the same bytes may have come about in more than one way.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.artifact.digest import RECORD, SUMS, ArtifactError, value_of
from scripts.artifact.record import read_record
from scripts.recipe.card import inert as text
from scripts.recipe.merge import MergeSpec

_LAYER = re.compile(r"^model\.layers\.(\d+)\.(.+?)(?:\.weight)?$")
_FORMULA = {
    "gradient": "`(1 - r) * first + r * second`, r along the tensors of a filter",
    "linear": "`(1 - r) * first + r * second`, r by layer",
    "slerp": "spherical interpolation at r, r by layer",
}


def card(spec: MergeSpec, inputs: Mapping[str, Path], summary: Mapping[str, Any]) -> str:
    """Return the text of README.md.

    Args:
        spec: the merge.
        inputs: folders of both models by `stage/name`.
        summary: content of merge.json.
    """
    first, second = spec.models
    bases = [spec.hub.get(name, name) for name in spec.models]
    lines = [
        "---",
        "base_model:",
        *(f"- {json.dumps(base)}" for base in bases),  # a JSON string is a YAML string, whatever it holds
        "base_model_relation: merge",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags:",
        "- merge",
        "---",
        "",
        f"# {text(spec.model)}",
        "",
        f"A merge of {text(first)} (first) and {text(second)} (second): {_FORMULA[spec.method]},",
        f"summed in fp32, rounded once to {spec.out_dtype}. r is the share of {text(second)}; config, tokenizer and",
        f"chat template are those of {text(first)}.",
        "",
        "## Ratios",
        "| operation | filter | values |",
        "|---|---|---|",
        *(_operation(operation) for operation in summary["operations"]),
        "",
        "Norms are of the difference to each parent over all layers of a projection.",
        "",
        "| tensors | layers | first r | last r | norm to first | norm to second |",
        "|---|--:|--:|--:|--:|--:|",
        *_projections(summary["tensors"]),
        "",
        f"Values that overflowed {spec.out_dtype}: {summary['overflowed']:,}; that became 0 by rounding: "
        f"{summary['flushed']:,}. `merge.json` holds the ratio and the distances of every tensor.",
        "",
        "## Where it is from",
        *_lineage(spec, inputs),
        "",
        "A digest is the SHA-256 of an artifact's `SHA256SUMS`. `artifact.json` beside this file lists those of all",
        "steps, under `lineage`.",
        "",
        "## Check it",
        "    sha256sum -c SHA256SUMS",
        "",
        "Every byte is decided by the recipe and the two digests above: the same merge on another machine, with any",
        "number of threads, gives the same files. `artifact.json` also holds a digest of each tensor, which does not",
        "depend on the size of the weight files.",
    ]
    return "\n".join(lines) + "\n"


def _operation(operation: Mapping[str, Any]) -> str:
    limits = [key for key in ("layer_only", "no_layers") if operation[key]]
    name = text(operation["filter"]) or "all tensors"
    values = ", ".join(f"{value:g}" for value in operation["gradient_values"])
    return f"| {text(operation['operation'])} | {' '.join([name, *map(text, limits)])} | {values} |"


def _projections(tensors: Mapping[str, Mapping[str, Any]]) -> list[str]:
    groups: dict[tuple[bool, str], list[Mapping[str, Any]]] = {}
    for name, facts in tensors.items():
        match = _LAYER.match(name)
        key = (True, match[2]) if match else (False, name.removeprefix("model.").removesuffix(".weight"))
        groups.setdefault(key, []).append(facts)
    rows = []
    for (layered, name), row in groups.items():
        norms = [_norm([facts[key] for facts in row]) for key in ("norm_c_minus_a", "norm_c_minus_b")]
        ends = [f"{row[i]['ratio']:.5f}" for i in (0, -1)]
        rows.append("| " + " | ".join([text(name), str(len(row)) if layered else "-", *ends, *norms]) + " |")
    return rows


def _norm(norms: Sequence[float | None]) -> str:
    known = [norm for norm in norms if norm is not None]
    return f"{math.sqrt(math.fsum(norm * norm for norm in known)):.4g}" if len(known) == len(norms) else "-"


def _lineage(spec: MergeSpec, inputs: Mapping[str, Path]) -> list[str]:
    """Return the steps before the merge, those without a predecessor first; the two inputs with their digests."""
    rows = ["| artifact | made from | digest |", "|---|---|---|"]
    waiting = {**{name: [] for name in inputs}, **spec.lineage}
    while waiting:
        name = next((n for n, parents in waiting.items() if not {*parents} & {*waiting}), next(iter(waiting)))
        parents = waiting.pop(name)
        digest = value_of(inputs[name]) if name in inputs and (inputs[name] / SUMS).is_file() else ""
        rows.append(f"| {text(name)} | {text(', '.join(parents))} | {digest} |")
    return rows


def known_digests(inputs: Mapping[str, Path]) -> dict[str, str]:
    """Return {artifact: VALUE} of all that lies before a merge, as far as the records at hand tell."""
    found: dict[str, str] = {}
    waiting = [(name, value_of(folder), folder) for name, folder in inputs.items() if (folder / SUMS).is_file()]
    while waiting:
        name, value, folder = waiting.pop()
        if name in found:
            continue
        found[name] = value
        try:
            record = read_record(folder / RECORD)
        except ArtifactError:
            continue  # lineage ends where the records end
        if record["value"] == value:  # an artifact that was rebuilt since has other parents than ours had
            root = folder.parents[name.count("/")]
            waiting += [(parent, its_value, root / parent) for parent, its_value in record["inputs"]]
    return dict(sorted(found.items()))
