"""Mixing: how many rows of each source, in which prompt format, and which are held out."""

from typing import Annotated, Literal

from pydantic import Field

from scripts.recipe.base import Count, Name, Positive, Spec, Strict
from scripts.recipe.compat import MixCompat


class Share(Strict):
    """What a mixture takes of one source."""

    max_rows: Count | None = None
    """Cap in episodes: the k smallest keyed hashes, so a larger cap only adds rows."""
    weight: Positive = 1.0
    """Share of the (capped) rows to keep when below 1; repeats when above (2.5 = twice and half again)."""
    target_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    """Share of tokens in the original mixture, printed beside what was reached."""
    missing: Literal["stop", "reweight"] = "stop"
    """A private source without a file: stop, or go on without it and record so."""


class MixSpec(Spec):
    """One mixture; inputs are the clean artifacts of `sources`, in that order."""

    mixture: Name
    format: Literal["metharme"] = "metharme"
    """Prompt format: how roles become text."""
    val_set_size: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of rows held out for evaluation."""
    val_split: Literal["hash", "file_tail"] = "hash"
    """`hash`: by keyed hash of the conversation; `file_tail`: the last rows, as the original run did."""
    sources: dict[Name, Share]
    missing_sources: list[Name] = Field(default_factory=list)
    """Private sources that this recipe goes on without; filled by the loader."""
    missing_percent: dict[Name, float] = Field(default_factory=dict)
    """Their shares of the original mixture, where these are known."""
    compat: MixCompat = MixCompat()
    """Defects of the original builder to reproduce."""
    seed: int

    def identity(self) -> dict[str, object]:
        """What decides the bytes: all but `missing`, which only decides whether the recipe loads at all.

        `target_percent` decides no row, but it is printed in the payload (`mix.json`, `README.md`): left out of the
        key, one key would have two values.
        """
        whole = self.model_dump(mode="json")
        for share in whole["sources"].values():
            del share["missing"]
        return whole
