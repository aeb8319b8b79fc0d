"""DATASETS.md: what a released model has read, by source: licence, origin, problems, share, and what is missing."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from scripts.recipe.card import inert, percent
from scripts.recipe.release import ReleaseSpec


def data_card(spec: ReleaseSpec, mixes: Mapping[str, Path]) -> str:
    """Return the text of DATASETS.md.

    Args:
        spec: the release.
        mixes: folders of the mixtures of its lineage, by name.
    """
    lines = [f"# Data behind {inert(spec.model)}", "", *source_table(spec)]
    for name, source in spec.sources.items():
        if source.known_problems:
            lines += ["", f"**{inert(source.title)}** ({inert(name)}):", ""]
            lines += [f"- {inert(problem)}" for problem in source.known_problems]
    for name, folder in mixes.items():
        mix = json.loads((folder / "mix.json").read_text(encoding="utf-8"))
        total = sum(counts["chars_train"] for counts in mix["sources"].values())
        lines += [
            "",
            f"## Mixture {inert(name)}",
            f"Prompt format {mix['format']}; held out {100 * mix['val_set_size']:g} %; seed {mix['seed']}.",
            "",
            "| source | training rows | held-out rows | characters | % of characters | original % of tokens |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for source_name, counts in mix["sources"].items():
            share, target = percent(counts["chars_train"], total), counts["target_percent"]
            figures = [f"{counts[key]:,}" for key in ("rows_train", "rows_validation", "chars_train")]
            said = "" if target is None else f"{target:g}"
            lines.append("| " + " | ".join([inert(source_name), *figures, share, said]) + " |")
        if mix["missing_sources"]:
            missing = math.fsum(mix["missing_percent"].values())
            lines += [
                "",
                f"Missing: {inert(', '.join(mix['missing_sources']))}, {missing:g} % of the original's tokens.",
            ]
    return "\n".join(lines) + "\n"


def source_table(spec: ReleaseSpec) -> list[str]:
    """Return the table of all sources with licence and origin; missing ones are named as such."""
    if not spec.sources:
        return ["No data of this recipe: the model was not trained here."]
    rows = ["| source | title | licence | may be published again | origin |", "|---|---|---|---|---|"]
    for name, source in spec.sources.items():
        place = inert(source.hub or source.place or "own copy")
        origin = "**missing**: not obtainable" if name in spec.missing_sources else place
        again = "yes" if source.redistributable else "no"
        rows.append(f"| {inert(name)} | {inert(source.title)} | {inert(source.license)} | {again} | {origin} |")
    return rows
