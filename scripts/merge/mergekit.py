"""Exchange with other tools: YAML of BlockMerge_Gradient and of mergekit's linear and slerp in, mergekit YAML out.

An importer refuses by name what it can't express; it never drops a key. An exported gradient is one filter for each
projection: mergekit interpolates over layers, so the index steps inside a layer become offsets of the knots.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scripts.artifact.stage import StageError
from scripts.merge.layout import LlamaShapes, gradient_keys, llama_tensors
from scripts.merge.ratios import assign
from scripts.recipe.merge import MergeSettings
from scripts.recipe.problems import from_validation, nearest

_BLOCKMERGE = {"model_path1", "model_path2", "output_model_path", "max_shard_size", "operations"}
_OPERATION = {"operation", "filter", "gradient_values", "layer_only", "no_layers"}
_MERGEKIT = {"models", "slices", "merge_method", "base_model", "parameters", "dtype", "out_dtype"}
_UNITS = {"MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}
_PLAIN = {"float32", "float16", "bfloat16"}
Knots = list[float]


def settings_dict(settings: MergeSettings) -> dict[str, Any]:
    """Return settings as a recipe writes them: only what differs from the defaults."""
    return settings.model_dump(mode="json", exclude_defaults=True)


def imported(data: Any, models: Sequence[str] | None = None) -> MergeSettings:
    """Return the merge that another tool's YAML describes.

    Args:
        data: parsed YAML of BlockMerge_Gradient, or of mergekit with `merge_method` linear or slerp.
        models: names of the first and second model in the recipe, instead of those in the file.

    Raises:
        StageError: a key, method or combination of values that a recipe can't express, by name.
    """
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"holds a {type(data).__name__}"
        raise StageError(f"{found}; the YAML of BlockMerge_Gradient or mergekit is needed")
    result = _from_mergekit(data) if "merge_method" in data else _from_blockmerge(data)
    names = list(models) if models else result["models"]
    try:
        return MergeSettings.model_validate({**result, "models": names})
    except ValidationError as error:
        raise StageError("\n".join(from_validation(error, MergeSettings, Path("can't become a merge"), {}))) from None


def _only(data: Mapping[str, Any], allowed: set[str], where: str) -> None:
    for key in data:
        if key not in allowed:
            known = ", ".join(sorted(allowed))
            raise StageError(f"{where}: {key!r} can't be expressed; known: {known}{nearest(str(key), allowed)}")


def _name(path: Any) -> str:
    """Return a recipe name for a path or a hub id."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", str(path).rstrip("/").split("/")[-1]) or "model"


def _from_blockmerge(data: dict[str, Any]) -> dict[str, Any]:
    _only(data, _BLOCKMERGE, "BlockMerge_Gradient")
    operations = data.get("operations")
    if not isinstance(operations, list):
        raise StageError("BlockMerge_Gradient: operations is missing; a list is needed")
    for operation in operations:
        _only(operation, _OPERATION, f"operation {operation.get('operation', '')!r}")
    # The script keeps quiet about gaps and overlaps; here the plan stops at them and names the setting to allow them.
    result: dict[str, Any] = {
        "models": [_name(data.get("model_path1", "first")), _name(data.get("model_path2", "second"))],
        "operations": [{"filter": "", **operation} for operation in operations],
    }
    if "max_shard_size" in data:
        match = re.fullmatch(r"(\d+)\s*(MB|MiB|GB|GiB)", str(data["max_shard_size"]))
        if match is None:
            raise StageError(
                f"max_shard_size: found {data['max_shard_size']!r}; allowed: a number and {', '.join(_UNITS)}"
            )
        result["max_shard_bytes"] = int(match[1]) * _UNITS[match[2]]
    return result


def _from_mergekit(data: dict[str, Any]) -> dict[str, Any]:
    method = data["merge_method"]
    if method not in ("linear", "slerp"):
        raise StageError(f"merge_method: {method!r} can't be expressed; known: linear, slerp")
    _only(data, _MERGEKIT, "mergekit")
    data = _unsliced(data)
    entries = data.get("models")
    if not isinstance(entries, list) or len(entries) != 2:
        raise StageError("models: exactly two are needed")
    for entry in entries:
        _only(entry, {"model", "parameters"}, "models")
        _only(
            entry.get("parameters") or {}, {"weight"} if method == "linear" else set(), f"models, {entry.get('model')}"
        )
    out = data.get("out_dtype") or data.get("dtype")
    if out not in _PLAIN:
        raise StageError(f"out_dtype (or dtype): found {out!r}; name it, one of {', '.join(sorted(_PLAIN))}")
    if data.get("dtype", "float32") != "float32":
        print(f"note: dtype {data['dtype']}: this workflow always adds in float32", file=sys.stderr)
    parameters = data.get("parameters") or {}
    base = data.get("base_model", entries[0]["model"])
    if base not in [entry["model"] for entry in entries]:
        raise StageError(f"base_model: {base!r} is not among the two models")
    first, second = entries if base == entries[0]["model"] else entries[::-1]
    if method == "slerp":
        _only(parameters, {"t"}, "parameters")
        shares = _conditions(parameters.get("t"), "t")
    else:
        _only(parameters, {"normalize"}, "parameters")
        pair = [_conditions((e.get("parameters") or {}).get("weight"), "weight") for e in (first, second)]
        shares = _shares(pair[0], pair[1], bool(parameters.get("normalize", True)))
    operations = [{"filter": name, "gradient_values": knots} for name, knots in shares]
    return {
        "models": [_name(first["model"]), _name(second["model"])],
        "method": method,
        "out_dtype": out,
        "operations": operations,
    }


def _unsliced(data: dict[str, Any]) -> dict[str, Any]:
    """Return a config of one slice over all layers of both models in the form without slices, which means the same.

    Raises:
        StageError: several slices, or layers that are cut, moved or paired otherwise.
    """
    if "slices" not in data:
        return data
    if "models" in data:
        raise StageError("slices: given beside models; mergekit takes one of them")
    slices = data["slices"]
    if not isinstance(slices, list) or len(slices) != 1 or not isinstance(slices[0], dict):
        found = len(slices) if isinstance(slices, list) else slices
        raise StageError(f"slices: found {found!r}; only one slice over all layers can be expressed, none is stacked")
    _only(slices[0], {"sources", "parameters"}, "slices[0]")
    sources = slices[0].get("sources")
    if not isinstance(sources, list) or len(sources) != 2:
        raise StageError("slices[0].sources: exactly two are needed")
    for source in sources:
        _only(source, {"model", "layer_range", "parameters"}, "slices[0].sources")
    first, second = (source.get("layer_range") for source in sources)
    if first != second or not (isinstance(first, list) and len(first) == 2 and first[0] == 0 and first[1] != 0):
        raise StageError(
            f"layer_range: found {first!r} and {second!r}; only the same range [0, N] over all layers of both models "
            "can be expressed"
        )
    print(f"note: layer_range {first}: right only for models of exactly {first[1]} layers", file=sys.stderr)
    inner, outer = slices[0].get("parameters") or {}, data.get("parameters") or {}
    if both := sorted({*inner} & {*outer}):
        raise StageError(f"parameters: {both[0]!r} is given for the slice and for all; keep one")
    models = [{k: v for k, v in source.items() if k != "layer_range"} for source in sources]
    rest = {k: v for k, v in data.items() if k != "slices"}
    return {**rest, "models": models, "parameters": {**outer, **inner}}


def _conditions(value: Any, key: str) -> list[tuple[str, Knots]]:
    """Return (filter, knots) of a number, a list of numbers, or a list of {filter, value}; empty filter: all."""
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        found = []
        for entry in value:
            _only(entry, {"filter", "value"}, key)
            name = entry.get("filter") or ""
            found.append(("" if name == "*" else str(name), _knots(entry.get("value"), key)))
        return found
    return [("", _knots(value, key))]


def _knots(value: Any, key: str) -> Knots:
    values = value if isinstance(value, list) else [value]
    if not values or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        raise StageError(f"{key}: found {value!r}; a number or a list of numbers is needed")
    return [float(v) for v in values]


def _shares(
    first: list[tuple[str, Knots]], second: list[tuple[str, Knots]], normalize: bool
) -> list[tuple[str, Knots]]:
    """Turn two weights into shares of the second model, where that is exact."""
    if [name for name, _ in first] != [name for name, _ in second]:
        raise StageError("weight: the two models have different filters; give both the same ones in the same order")
    result = []
    for (name, ours), (_, theirs) in zip(first, second, strict=True):
        if len(ours) != len(theirs):
            raise StageError(
                f"weight, filter {name!r}: lists of {len(ours)} and {len(theirs)} values; give both the same number"
            )
        sums = [a + b for a, b in zip(ours, theirs, strict=True)]
        if max(sums) - min(sums) > 1e-12 or (not normalize and abs(sums[0] - 1) > 1e-12) or sums[0] == 0:
            needed = "the same sum everywhere" if normalize else "a sum of 1 with normalize: false"
            raise StageError(f"weight, filter {name!r}: sums {sums} can't be expressed; needed: {needed}")
        result.append((name, [b / total for b, total in zip(theirs, sums, strict=True)]))
    return result


def exported(settings: MergeSettings, layers: int) -> dict[str, Any]:
    """Return an equivalent mergekit config (method linear) for a model of `layers` layers.

    Ratios agree to 1e-9 at every tensor. Bits may not: mergekit multiplies and adds in another order.

    Raises:
        StageError: slerp, whose weights depend on the tensors.
    """
    if settings.method == "slerp":
        raise StageError("method: slerp has no ratios to export; write its t by hand")
    tensors = llama_tensors(LlamaShapes(layers, 8, 8, 1, 1, 8, 8))
    blends = assign(settings, gradient_keys(tensors, settings.legacy_inv_freq), layers)
    knots: dict[str, Knots] = {}
    for name in tensors:
        part = re.sub(r"^model\.layers\.\d+\.", "", name) if ".layers." in name else name
        knots.setdefault(part.removesuffix(".weight"), []).append(blends[name].ratio)
    shares = {part: _two_knots(row) for part, row in knots.items()}
    models = []
    for second, model in enumerate(settings.models):
        values = [{"filter": p, "value": [r if second else 1.0 - r for r in row]} for p, row in shares.items()]
        models.append({"model": model, "parameters": {"weight": values}})
    return {
        "models": models,
        "merge_method": "linear",
        "base_model": settings.models[0],
        "parameters": {"normalize": False},
        "dtype": "float32",
        "out_dtype": settings.out_dtype,
    }


def _two_knots(row: Knots) -> Knots:
    """Return the ends of a straight row, or every value of any other: one knot a layer is exact as well."""
    straight = [row[0] + (row[-1] - row[0]) * i / max(1, len(row) - 1) for i in range(len(row))]
    if max(abs(a - b) for a, b in zip(row, straight, strict=True)) > 1e-9:
        return row
    return [row[0]] if row[0] == row[-1] else [row[0], row[-1]]
