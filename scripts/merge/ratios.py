"""Ratios from headers alone: which share of the second model each tensor gets.

Source: reference script of BlockMerge_Gradient (values run over the index of the tensor in the filtered list, in
model definition order, not over the layer) and mergekit's interpolation over layers for `linear` and `slerp`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from scripts.artifact.stage import StageError
from scripts.recipe.merge import MergeSettings, Operation
from scripts.recipe.problems import nearest

_LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Blend:
    """What happens to one tensor: blends in order, each a share of the second model; none keeps the first's."""

    ratios: tuple[float, ...] = ()
    operation: str = ""

    @property
    def ratio(self) -> float:
        """Share of the second model after all blends."""
        if len(self.ratios) == 1:
            return self.ratios[0]
        kept = 1.0
        for ratio in self.ratios:
            kept *= 1.0 - ratio
        return 1.0 - kept


def gradient(values: Sequence[float], count: int) -> list[float]:
    """Return `count` ratios along the knots `values`.

    Every section between two knots gets `count // sections` tensors with both ends included, so inner knots appear
    twice; the tensors left over get the last value. The float64 steps are those of numpy's linspace, bit for bit.
    """
    knots = list(values) if len(values) > 1 else [values[0], values[0]]
    sections = len(knots) - 1
    size = count // sections
    ratios: list[float] = []
    for low, high in pairwise(knots):
        step = (high - low) / (size - 1) if size > 1 else 0.0
        # As numpy does where a step is too small for a float64: the division comes first.
        section = [(i * step if step else i / max(1, size - 1) * (high - low)) + low for i in range(size)]
        if size > 1:
            section[-1] = high
        ratios += section
    return ratios + [knots[-1]] * (count - len(ratios))


def layer_ratio(values: Sequence[float], name: str, layers: int) -> float:
    """Return the ratio at position layer / (layers - 1) along the knots; 0 outside the layers, as mergekit has it."""
    match = _LAYER.search(name)
    position = int(match[1]) / (layers - 1) if match and layers > 1 else 0.0
    place = position * (len(values) - 1)
    low = min(int(place), max(0, len(values) - 2))
    if len(values) == 1:
        return values[0]
    return values[low] + (values[low + 1] - values[low]) * (place - low)


def matches(operation: Operation, name: str) -> bool:
    """Whether an operation's filter takes this tensor."""
    in_layers = "layer" in name
    return (
        operation.filter in name
        and not (operation.layer_only and not in_layers)
        and not (operation.no_layers and in_layers)
    )


def label_of(operation: Operation) -> str:
    """Return an operation's own label or its filter."""
    return operation.operation or operation.filter or "all"


def assign(settings: MergeSettings, names: Sequence[str], layers: int) -> dict[str, Blend]:
    """Return the blend of every tensor.

    Args:
        settings: method, operations and what to do about overlaps and gaps.
        names: all keys in model definition order.
        layers: number of decoder layers (only `linear` and `slerp` use it).

    Raises:
        StageError: a filter without a match, overlapping filters, or tensors that no filter covers.
    """
    found: dict[str, list[tuple[float, str]]] = {name: [] for name in names}
    for operation in settings.operations:
        matched = [name for name in names if matches(operation, name)]
        if not matched:
            raise StageError(_no_match(operation, names))
        if settings.method == "gradient":
            shares = gradient(operation.gradient_values, len(matched))
        else:
            matched = [name for name in matched if not found[name]]
            shares = [layer_ratio(operation.gradient_values, name, layers) for name in matched]
            if not matched:
                raise StageError(
                    f"operation {label_of(operation)!r}: earlier operations took all its tensors; move it up"
                )
        for name, share in zip(matched, shares, strict=True):
            found[name].append((share, label_of(operation)))
    _check_coverage(settings, found)
    return {n: Blend(tuple(r for r, _ in hits), " + ".join(o for _, o in hits)) for n, hits in found.items()}


def _no_match(operation: Operation, names: Sequence[str]) -> str:
    words = sorted({part for name in names for part in _words(name)})
    hint = nearest(operation.filter, words)
    limits = [key for key in ("layer_only", "no_layers") if getattr(operation, key)]
    with_limits = f" with {' and '.join(limits)}" if limits else ""
    return (
        f"operation {label_of(operation)!r}: filter {operation.filter!r}{with_limits} matches none of {len(names)} "
        f"tensors{hint} (names look like {names[min(1, len(names) - 1)]!r})"
    )


def _words(name: str) -> list[str]:
    """Return the parts of a name that a filter may mean: q_proj, self_attn, model.norm, ..."""
    stem = name.removesuffix(".weight")
    return [stem] if not _LAYER.search(name) else [p for p in stem.split(".") if not p.isdigit()]


def _check_coverage(settings: MergeSettings, found: dict[str, list[tuple[float, str]]]) -> None:
    double = [name for name, hits in found.items() if len(hits) > 1]
    if double and not settings.allow_compound:
        labels = ", ".join(repr(label) for _, label in found[double[0]])
        raise StageError(
            f"{len(double)} tensors are matched by more than one operation, first {double[0]!r} by {labels}; narrow a "
            "filter, or set allow_compound: true to blend them one after another"
        )
    missed = [name for name, hits in found.items() if not hits]
    if missed and settings.uncovered == "error":
        shown = ", ".join(missed[:5]) + (", ..." if len(missed) > 5 else "")
        raise StageError(
            f"{len(missed)} tensors are matched by no operation: {shown}; add an operation, or set uncovered: "
            "first_model to keep the first model's"
        )
