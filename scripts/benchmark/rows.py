"""Rows of the recipe's mixtures, as a benchmark puts them before a model."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from scripts.recipe.prompt_format import FormatName

END = "\ufdd0"
"""Stands for the model's end token, which training and the chat template put behind every turn of the model. Unicode
keeps U+FDD0 for a program's own use; what the end token is only the model's folder knows (`Model.tok_encode`)."""


class MixRow(NamedTuple):
    """One row of a mixture."""

    source: str
    id: str
    texts: tuple[str, ...]
    """Of its segments; END follows what the model wrote."""
    by_model: tuple[bool, ...]
    format_name: FormatName


def read_rows(mixes: Mapping[str, Path], split: str) -> Iterator[MixRow]:
    """Yield the rows of a split of all mixtures, those of several as often as they stand there.

    What one mixture holds out and another one trains on (other sizes of the held-out part, or `file_tail`) is no
    held-out row; a row is known by its source and its id.

    Args:
        mixes: folders of the mixtures.
        split: `validation` or `train`.
    """
    trained = _trained(mixes) if split == "validation" and len(mixes) > 1 else set()
    for folder in mixes.values():
        name: FormatName = json.loads((folder / "mix.json").read_text(encoding="utf-8"))["format"]
        for row in pq.read_table(folder / f"{split}.parquet", columns=["id", "source", "segments"]).to_pylist():
            if (row["source"], _episode(row["id"])) in trained:
                continue
            by_model = tuple(segment["trained"] for segment in row["segments"])
            plain = [segment["text"].replace(END, "") for segment in row["segments"]]
            texts = tuple(text + END * wrote for text, wrote in zip(plain, by_model, strict=True))
            yield MixRow(row["source"], row["id"], texts, by_model, name)


def _trained(mixes: Mapping[str, Path]) -> set[tuple[str, str]]:
    found = set()
    for folder in mixes.values():
        table = pq.read_table(folder / "train.parquet", columns=["id", "source"])
        columns = (table[name].to_pylist() for name in ("source", "id"))
        found |= {(source, _episode(name)) for source, name in zip(*columns, strict=True)}
    return found


def _episode(name: str) -> str:
    """Return the id without the number of a repeat (`#2`)."""
    return name.rpartition("#")[0] or name if name.rpartition("#")[2].isdigit() else name
