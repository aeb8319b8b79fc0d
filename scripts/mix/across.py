"""Near-duplicates among the rows of all sources of a mixture; `clean` knows only those within a source."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.mix.episodes import episodes
from scripts.recipe.near import NearDuplicates


class Twin(NamedTuple):
    """A row that is left out, and for the sake of which other one; both as (source, episode)."""

    source: str
    id: str
    kept_source: str
    kept: str
    similarity: float


def twins(
    seed: int, threshold: float, folders: Mapping[str, Path], ids: Mapping[str, Sequence[str]], work: Path
) -> list[Twin]:
    """Return the rows to leave out: of rows that are alike the longest stays, whatever its source.

    Args:
        seed: the recipe's.
        threshold: Jaccard similarity of the sets of word 5-grams from which on two rows are one.
        folders: the clean artifacts.
        ids: the episodes of each that are compared.
        work: folder for a file of 8 bytes a word.
    """
    places: dict[str, tuple[str, str]] = {}
    with NearDuplicates(work / "shingles.u64", seed, threshold) as near:
        for source, folder in folders.items():
            usable = set(ids[source])
            for episode in episodes(source, folder):
                if episode.id in usable:
                    name = f"{source}/{episode.id}"
                    places[name] = (source, episode.id)
                    near.add(name, "\n".join((episode.system or "", *(text or "" for _, text in episode.turns))))
        found = near.found()
    pairs = ((places[name], places[duplicate.kept], duplicate.similarity) for name, duplicate in found.items())
    return sorted(Twin(*dropped, *kept, similarity) for dropped, kept, similarity in pairs)


def write_twins(path: Path, found: Sequence[Twin], threshold: float) -> dict[str, Any]:
    """Write one line a row that is left out; return what `mix.json` says of them."""
    lines = [json.dumps({**twin._asdict(), "similarity": round(twin.similarity, 3)}) for twin in found]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    dropped = Counter(twin.source for twin in found)
    between = Counter(f"{twin.source} < {twin.kept_source}" for twin in found)
    return {"threshold": threshold, "dropped": dict(sorted(dropped.items())), "pairs": dict(sorted(between.items()))}
