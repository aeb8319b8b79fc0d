"""Cleaning: how one raw source becomes episodes, and which rows are refused."""

from typing import Annotated, Literal

from pydantic import Field

from scripts.recipe.base import Name, Spec, Strict


class Pippa(Strict):
    """PIPPA JSON lines: character persona plus a conversation of `{message, is_human}`."""

    adapter: Literal["pippa"]
    """Names the format."""
    submitted_before: int = 1673049600000
    """Unix milliseconds; only logs submitted before Pygmalion-6B (2023-01-07T00:00Z) by default."""


class OpenOrca(Strict):
    """OpenOrca parquet: system_prompt, question, response."""

    adapter: Literal["openorca"]
    """Names the format."""


class ShareGpt(Strict):
    """A JSON array (or JSON lines) of `{id, conversations: [{from: human|gpt, value}]}`."""

    adapter: Literal["sharegpt"]
    """Names the format."""


class Airoboros(Strict):
    """Airoboros JSON lines: instruction, response."""

    adapter: Literal["airoboros"]
    """Names the format."""


class AiDungeon(Strict):
    """`<|startoftext|>` stories with `> action` lines, `<|endoftext|>`."""

    adapter: Literal["aidungeon"]
    """Names the format."""


class Alpaca(Strict):
    """Instruction JSON lines: instruction, input, output or `instances: [{input, output}]`."""

    adapter: Literal["alpaca"]
    """Names the format."""


class GuessInstruction(Strict):
    """Flipped learning: Dolly or Alpaca rows turned around; given the answer, write the instruction."""

    adapter: Literal["guess_instruction"]
    """Names the format."""


class Floyd(Strict):
    """Club Floyd transcripts: `{name, data: [{action, response}]}`."""

    adapter: Literal["floyd"]
    """Names the format."""
    min_rating: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 3.0
    """Refuse transcripts of games rated below this (about 15 %, as in the original mixture); unrated ones stay."""


class Forum(Strict):
    """Role-play forum CSV: thread_title, message_username, message (HTML)."""

    adapter: Literal["forum"]
    """Names the format."""


class Stories(Strict):
    """Stories CSV: story_title, story_tags, story_summary, story."""

    adapter: Literal["stories"]
    """Names the format."""
    chunk_words: Annotated[int, Field(ge=1)] = 250
    """Words after which a story is cut into a new model turn, at a paragraph's end."""


class SillyTavern(Strict):
    """SillyTavern JSON lines: optional header line, then `{name, is_user, mes}`."""

    adapter: Literal["sillytavern"]
    """Names the format."""


Adapter = Annotated[
    Pippa
    | OpenOrca
    | ShareGpt
    | Airoboros
    | AiDungeon
    | Alpaca
    | GuessInstruction
    | Floyd
    | Forum
    | Stories
    | SillyTavern,
    Field(discriminator="adapter"),
]


class Filters(Strict):
    """Which episodes are refused. The minors gate is not here: it is always on."""

    min_exchanges: Annotated[int, Field(ge=0)] = 1
    """Smallest number of model turns."""
    max_turn_chars: Annotated[int, Field(ge=1)] = 40_000
    """Longest turn, in characters."""
    refusals: Literal["drop", "keep"] = "drop"
    """What to do with episodes in which the model refuses or moralises."""
    adult: Literal["exclude", "label"] = "exclude"
    """Adult content: refuse it, or keep it under a content label."""
    exact_duplicates: bool = True
    """Drop all but the first of identical episodes."""
    prefix_duplicates: bool = True
    """Of chats that are prefixes of one another keep the longest."""
    near_duplicates: Annotated[float, Field(ge=0.7, le=1, allow_inf_nan=False)] | None = 0.8
    """Of rows whose sets of word 5-grams are at least this alike (Jaccard similarity) keep the longest; null: all."""


class Decontamination(Strict):
    """What happens to rows that quote an item of one of the recipe's benchmarks."""

    policy: Literal["remove", "report", "off"] = "remove"
    """`remove` the row; `report` it in the table by task and keep it; `off`: don't look."""
    ngram: Annotated[int, Field(ge=5, le=100)] = 13
    """Words in a row that make a quotation."""
    short_words: Annotated[int, Field(ge=5, le=100)] = 8
    """A question of fewer words than `ngram` counts as quoted where all of it is, if it has at least so many."""


class CleanSpec(Spec):
    """One source to clean. Inputs: the download of the same name, then those of the suites in `benchmarks`."""

    source: Name
    read: Adapter
    filters: Filters = Filters()
    decontamination: Decontamination = Decontamination()
    benchmarks: dict[Name, dict[Name, str]] = {}
    """{suite: {task: file}} of all suites of the recipe that have files; filled by the graph."""
    seed: int
