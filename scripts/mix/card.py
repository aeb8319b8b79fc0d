"""What the mixture is made of: `mix.json` for stages, `README.md` for people and for `datasets.load_dataset`."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from scripts.recipe.card import percent
from scripts.recipe.mix import MixSpec


@dataclass
class SourceCounts:
    """What one source gave to the mixture."""

    episodes_in: int
    """Episodes of the clean artifact."""
    without_model_turn: int
    """Episodes that teach nothing and are left out."""
    target_percent: float | None
    """Share of tokens in the original mixture, where it is known."""
    rows_train: int = 0
    """Repeats count."""
    rows_validation: int = 0
    chars_train: int = 0
    """Characters of the training texts, markers included."""
    chars_validation: int = 0
    user_turns_cut: int = 0
    """User turns behind the last model turn, in rows written."""
    markers_disarmed: int = 0
    """Literal role markers inside texts, in rows written."""


def mix_json(spec: MixSpec, sources: dict[str, SourceCounts], more: dict[str, Any] | None = None) -> str:
    """Return the text of `mix.json`; sources stand in the recipe's order; `more` is added as it is."""
    content: dict[str, Any] = {
        "mixture": spec.mixture,
        "format": spec.format,
        "seed": spec.seed,
        "val_split": spec.val_split,
        "val_set_size": spec.val_set_size,
        "missing_sources": spec.missing_sources,
        "missing_percent": spec.missing_percent,
        "sources": {name: asdict(counts) for name, counts in sources.items()},
        **(more or {}),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def readme(spec: MixSpec, sources: dict[str, SourceCounts], more: dict[str, Any] | None = None) -> str:
    """Return the dataset card: front matter that names the splits' files, then the composition."""
    total = sum(counts.chars_train for counts in sources.values())
    # `datasets` 5.2 refuses a split of a file without rows, so nothing held out is not a split.
    parts = ["train", *(["validation"] if any(counts.rows_validation for counts in sources.values()) else [])]
    lines = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *(f"  - split: {part}\n    path: {part}.parquet" for part in parts),
        "---",
        "",
        f"# Mixture {spec.mixture}",
        "",
        f"One row is one conversation in the prompt format {spec.format}: the concatenated texts of `segments` are the",
        "exact training text, `trained` marks what the model wrote.",
        "",
        "| source | episodes | training rows | held-out rows | training characters | share % | original share % |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, counts in sources.items():
        target = "" if counts.target_percent is None else f"{counts.target_percent:g}"
        figures = (counts.episodes_in, counts.rows_train, counts.rows_validation, counts.chars_train)
        share = percent(counts.chars_train, total)
        lines.append("| " + " | ".join([name, *(f"{figure:,}" for figure in figures), share, target]) + " |")
    lines += [
        "",
        "Shares are of characters here; the original mixture's are of tokens, where they are known.",
        f"Held out: {100 * spec.val_set_size:g} %, {_HELD_OUT[spec.val_split]}. Seed: {spec.seed}.",
    ]
    if spec.missing_sources:
        lines += ["", *_missing(spec)]
    if more and "near_duplicates" in more:
        dropped = more["near_duplicates"]["dropped"]
        names = ", ".join(f"{name} {count:,}" for name, count in dropped.items()) or "none"
        lines += ["", f"Left out, since a longer row is as alike as {spec.near_duplicates:g}: {names}."]
    if spec.compat.on:
        lines += ["", f"Defects of the original builder are reproduced: {', '.join(spec.compat.on)} (see `mix.json`)."]
    return "\n".join(lines) + "\n"


def _missing(spec: MixSpec) -> list[str]:
    """Return the lines about sources that nobody outside has."""
    parts = [
        f"{name} ({spec.missing_percent[name]:g} % of the original)" if name in spec.missing_percent else name
        for name in spec.missing_sources
    ]
    return [
        f"Not obtainable and left out (`missing: reweight`): {', '.join(parts)};",
        f"together {math.fsum(spec.missing_percent.values()):g} % of the original mixture, as far as it is known. The",
        "shares of the other sources grow accordingly: this is not the original mixture, and nobody outside can",
        "rebuild that.",
    ]


_HELD_OUT = {
    "hash": "decided by a keyed hash of each conversation",
    "file_tail": "the last rows, source after source",
}
