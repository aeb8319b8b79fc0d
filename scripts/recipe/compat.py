"""Defects of the original builder, each a switch: `compat: original` in a recipe turns on all of them.

Source: data reference, section 1.3, written from its descriptions; no line of the original code is here. The minors
gate is no switch: it stays on.
"""

from typing import Any

from pydantic import Field, model_validator

from scripts.recipe.base import Name, Strict

ORIGINAL = "original"


class CleanCompat(Strict):
    """Switches that the clean stage obeys."""

    orca_refusals: bool = False
    """OpenOrca: no refusal is dropped; the original's purge was dead code."""
    aidungeon_flush: bool = False
    """AI Dungeon: narrative waits in a buffer of 300 words and comes out behind the actions; the rest is lost."""
    refusal_list: bool = False
    """Refusals: any answer that holds one of a list of substrings is dropped, fiction too."""
    story_tail: bool = False
    """The last piece of a story is lost if it is short; titles that merely hold the letters "ooc" are dropped."""
    cai_prompt: bool = False
    """PIPPA: every persona is told to hold back when a talk turns intimate."""
    template_choice: bool = False
    """Wording is chosen evenly over all variants, so that the template with the most variants wins."""
    dedup: bool = False
    """Only exactly equal rows are duplicates; beginnings of longer chats and near-duplicates stay."""
    rng: bool = False
    """Wording is drawn from one generator in the order of the rows, so each choice depends on all rows before it."""
    orca_cap: bool = False
    """OpenOrca: `max_rows` takes the first N + 1 rows of the file; here: rows keep their place for the mix."""

    @property
    def on(self) -> list[str]:
        """Names of the switches that are on, in the order above."""
        return [name for name in type(self).model_fields if getattr(self, name)]

    def only(self, *names: str) -> "CleanCompat":
        """Return the same with only these switches on."""
        return CleanCompat(**dict.fromkeys(names, True))


class MixCompat(Strict):
    """Switches that the mix stage obeys."""

    first_rows: list[Name] = Field(default_factory=list)
    """Sources of which the cap takes the first N + 1 rows of the file (`orca_cap`)."""
    window: bool = False
    """Long chats lose their end where the sign of the window's test was inverted."""

    @property
    def on(self) -> list[str]:
        """Names of the switches that are on."""
        return [*(["orca_cap"] if self.first_rows else []), *(["window"] if self.window else [])]


class Compat(CleanCompat):
    """Which defects of the original builder to reproduce: `original` for all, or single switches."""

    window: bool = False
    """Chats over 2,016 estimated tokens lose their end, since the test that shortens them had its sign inverted."""

    @model_validator(mode="before")
    @classmethod
    def _all(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value != ORIGINAL:
                raise ValueError(f"found {value!r}; allowed: {ORIGINAL}, or a table of {', '.join(cls.model_fields)}")
            return dict.fromkeys(cls.model_fields, True)
        return value

    def for_source(self, adapter: str) -> CleanCompat:
        """Return the switches that matter for a source read by `adapter`: no other one may rerun it."""
        relevant = {"refusal_list", "dedup"} | _OF_ADAPTER.get(adapter, frozenset())
        return self.only(*(name for name in self.on if name in relevant))

    def for_mix(self, adapters: dict[str, str]) -> MixCompat:
        """Return the switches that matter for a mixture of sources read by these adapters."""
        orca = [name for name, adapter in adapters.items() if adapter == "openorca"] if self.orca_cap else []
        return MixCompat(first_rows=orca, window=self.window)


_WORDING = frozenset({"rng", "template_choice"})
_OF_ADAPTER = {
    "aidungeon": frozenset({"rng", "aidungeon_flush"}),
    "forum": frozenset({"rng", "story_tail"}),
    "guess_instruction": _WORDING,
    "openorca": frozenset({"orca_refusals", "orca_cap"}),
    "pippa": frozenset({"rng", "cai_prompt"}),
    "sillytavern": frozenset({"rng"}),
    "stories": frozenset({"rng", "story_tail"}),
}
