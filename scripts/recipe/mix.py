"""Mixing: how many rows of each source, in which prompt format, and which are held out."""

import re
from math import prod
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from scripts.recipe.base import Count, Name, Positive, Spec, Strict
from scripts.recipe.compat import MixCompat
from scripts.recipe.prompt_format import FormatName

ALTERNATIVES = re.compile(r"%\{([^{}]*)\}")
"""`%{one|other}` in a system prompt's template."""
_SLOTS = ("system", "response_length_str", "response_style_str")
_MOST_VARIANTS = 256


def alternatives(template: str) -> int:
    """Return how many variants a template has."""
    return prod(choices.count("|") + 1 for choices in ALTERNATIVES.findall(template))


def _sound(template: str) -> str:
    unknown = [name for name in re.findall(r"\{\{(.*?)\}\}", template) if name not in _SLOTS]
    if unknown:
        raise ValueError(f"unknown slot {{{{{unknown[0]}}}}}; allowed: {', '.join(_SLOTS)}")
    if "%{" in ALTERNATIVES.sub("", template):
        raise ValueError("%{ without its }: alternatives are %{one|other}, not one inside another")
    if alternatives(template) > _MOST_VARIANTS:
        raise ValueError(f"{alternatives(template)} variants, at most {_MOST_VARIANTS}; make two templates of it")
    return template


Template = Annotated[str, Field(min_length=1), AfterValidator(_sound)]


class Share(Strict):
    """What a mixture takes of one source."""

    max_rows: Count | None = None
    """Cap in episodes: the k smallest keyed hashes, so a larger cap only adds rows."""
    max_chars: Count | None = None
    """Cap in characters (of system texts and turns; about 4 a token): smallest keyed hashes until the next would pass
    it. With `max_rows` the smaller one decides."""
    system_prompts: list[Template] = []
    """Templates that replace the system text, chosen by keyed hash, template first, then variant. `%{one|other}` takes
    one of the words; `{{system}}` is the conversation's own system text; `{{response_length_str}}` and
    `{{response_style_str}}` say how long and in which style the model writes. None: the text stays as it is."""
    weight: Positive = 1.0
    """Share of the (capped) rows to keep when below 1; repeats when above (2.5 = twice and half again)."""
    target_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    """Share of tokens in the original mixture, printed beside what was reached."""
    missing: Literal["stop", "reweight"] = "stop"
    """A private source without a file: stop, or go on without it and record so."""


class MixSpec(Spec):
    """One mixture; inputs are the clean artifacts of `sources`, in that order."""

    mixture: Name
    format: FormatName = "metharme"
    """Prompt format: how roles become text, in training and in the chat template of what is trained."""
    val_set_size: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of rows held out for evaluation."""
    val_split: Literal["hash", "file_tail"] = "hash"
    """`hash`: by keyed hash of the conversation; `file_tail`: the last rows, as the original run did."""
    near_duplicates: Annotated[float, Field(ge=0.7, le=1, allow_inf_nan=False)] | None = None
    """Of rows of all sources whose sets of word 5-grams are at least this alike (Jaccard similarity) keep the longest,
    before caps and weights; null: only `filters.near_duplicates` of each source. Flipped sources hold rows of others on
    purpose, and would lose them."""
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
