"""Defects of the original builder that belong to the mixture (`compat`), and what each changes.

Source: data reference, section 1.3, `orca_cap` and `window`: written from its descriptions and held to its figures.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scripts.artifact.stage import StageError
from scripts.mix.choose import Row, take
from scripts.mix.episodes import chars_by_id, episode_ids, episodes
from scripts.mix.render import render
from scripts.recipe.compat import MixCompat
from scripts.recipe.mix import MixSpec, Share
from scripts.recipe.prompt_format import FORMATS

WINDOW_TOKENS = 2016
"""2,048 less 32."""
TOKENS_A_WORD = 1.7

Turns = list[tuple[str, str | None]]


def taken(spec: MixSpec, source: str, folder: Path, ids: Sequence[str], share: Share) -> list[Row]:
    """Return the rows that the mixture takes of one source, under the recipe's switches.

    Args:
        spec: the mixture; `spec.compat` holds the switches.
        source: its name.
        folder: its clean artifact.
        ids: its usable episodes.
        share: what the recipe takes of it.
    """
    if spec.compat.window:
        whole = {e.id for e in episodes(source, folder) if cut_turns(e.turns, spec.compat)}
        ids = [name for name in ids if name in whole]
    if source in spec.compat.first_rows and share.max_rows is not None:
        ids = _first_rows(source, folder, set(ids), share.max_rows + 1)
        share = share.model_copy(update={"max_rows": None})
    chars = chars_by_id(source, folder) if share.max_chars is not None else None
    return take(spec.seed, source, ids, share, chars)


def _first_rows(source: str, folder: Path, ids: set[str], count: int) -> list[str]:
    """Return the first `count` episodes in the order of the files: the original's cap let one row more pass."""
    path = folder / "episodes.parquet"
    if "line" not in pq.read_schema(path).names:
        raise StageError(f"clean/{source}: episodes.parquet lacks `line`, which compat.orca_cap needs; rebuild it")
    rows = pq.read_table(path, columns=["id", "file", "line"]).to_pylist()
    order = sorted((row for row in rows if row["id"] in ids), key=lambda row: (row["file"], row["line"], row["id"]))
    return [row["id"] for row in order[:count]]


def cut_turns(turns: Turns, compat: MixCompat) -> Turns:
    """Return the turns that are left of a conversation; may be empty."""
    return windowed(turns) if compat.window else turns


def windowed(turns: Turns) -> Turns:
    """Return the longest row that the original's window gave of a conversation.

    At the first turn with which the estimate goes over 2,016 tokens the oldest turn leaves the window. If that makes
    it fit, the loop that should have gone on while it is too long goes on while it is not, empties the window, and
    the rest of the conversation is lost. If it does not fit, the window stays too long.
    """
    window: Turns = []
    longest: Turns = []
    total = 0
    for turn in turns:
        window.append(turn)
        total += _tokens(turn)
        if total > WINDOW_TOKENS:
            total -= _tokens(window.pop(0))
            if total <= WINDOW_TOKENS:
                break
        if turn[0] == "model":
            longest = list(window)
    return longest


def _tokens(turn: tuple[str, str | None]) -> int:
    return ceil(len((turn[1] or "").split()) * TOKENS_A_WORD)


def differences(spec: MixSpec, folders: Mapping[str, Path]) -> dict[str, Any]:
    """Return rows and characters of the whole mixture without the switches, with each alone, and with all.

    Each costs one more reading of the sources.
    """
    alone = {
        "orca_cap": MixCompat(first_rows=spec.compat.first_rows),
        "window": MixCompat(window=spec.compat.window),
    }
    variants = {"none": MixCompat(), **{name: alone[name] for name in spec.compat.on}, "all": spec.compat}
    found = {name: _count(spec.model_copy(update={"compat": c}), folders) for name, c in variants.items()}
    base_rows, base_chars = found["none"]
    return {
        name: {"rows": rows, "chars": chars, "rows_more": rows - base_rows, "chars_more": chars - base_chars}
        for name, (rows, chars) in found.items()
    }


def _count(spec: MixSpec, folders: Mapping[str, Path]) -> tuple[int, int]:
    rows = chars = 0
    for source, folder in folders.items():
        copies: dict[str, int] = {}
        for row in taken(spec, source, folder, episode_ids(source, folder)[0], spec.sources[source]):
            copies[row.episode] = copies.get(row.episode, 0) + 1
        for episode in episodes(source, folder):
            if episode.id in copies:
                rendered = render(episode.system, cut_turns(episode.turns, spec.compat), FORMATS[spec.format])
                chars += copies[episode.id] * sum(len(segment.text) for segment in rendered.segments)
        rows += sum(copies.values())
    return rows, chars
