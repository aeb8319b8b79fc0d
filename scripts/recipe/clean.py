"""Cleaning: how one raw source becomes episodes, and which rows are refused."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from scripts.recipe.base import Name, Spec, Strict
from scripts.recipe.compat import CleanCompat


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


class Columns(Strict):
    """What the columns (JSON keys) of your own file are called, where it isn't what everybody calls them."""

    turns: str | None = None
    """The list of messages; else `conversations`, `messages` or `conversation`."""
    role: str | None = None
    """In a message, who speaks; else `from` or `role`."""
    text: str | None = None
    """In a message, what is said; else `value` or `content`."""
    system: str | None = None
    """System text of the whole row; else `system` or `system_prompt`."""
    instruction: str | None = None
    """What is asked; else `instruction`, `prompt` or `question`."""
    input: str | None = None
    """Material of the question; else `input` or `context`."""
    output: str | None = None
    """The answer; else `output`, `response`, `completion` or `answer`."""
    history: str | None = None
    """Earlier pairs `[question, answer]`; else `history`."""
    id: str | None = None
    """The row's own id; else `id` or `conversation_id`."""
    generator: str | None = None
    """The model that wrote the answers, for the generator policy; else `generator` or `model`."""


class Generic(Strict):
    """Your own data: ShareGPT, OpenAI messages or Alpaca rows in JSON lines, a JSON array or parquet."""

    adapter: Literal["generic"]
    """Names the format."""
    form: Literal["auto", "sharegpt", "messages", "alpaca"] = "auto"
    """Shape of a row; `auto` takes what the row's keys say."""
    columns: Columns = Columns()
    """Own names of columns."""
    roles: dict[str, Literal["user", "model", "system"]] = {}
    """Own names of speakers, beside human, user, gpt, assistant, model, bot, system and developer."""


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
    | SillyTavern
    | Generic,
    Field(discriminator="adapter"),
]


Purpose = Literal["roleplay", "instruction", "story"]
Generator = Literal["people", "openai", "anthropic", "other", "unknown"]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]


class Filters(Strict):
    """Which episodes are refused. The minors gate is not here: it is always on."""

    min_exchanges: Annotated[int, Field(ge=0)] = 1
    """Smallest number of model turns."""
    max_turn_chars: Annotated[int, Field(ge=1)] = 40_000
    """Longest turn, in characters."""
    languages: list[Language] | None = ["en"]
    """Allowed languages (ISO 639 codes), judged on the first 500 characters of the turns; null keeps all."""
    language_min_chars: Annotated[int, Field(ge=1)] = 60
    """Shorter texts are kept whatever they look like: too little to judge by."""
    openai_roleplay: Literal["drop", "keep"] = "drop"
    """Role-play that an OpenAI model wrote: refuse it, as the announcement did, or keep it."""
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
    purpose: Purpose = "instruction"
    generator: Generator = "unknown"
    compat: CleanCompat = CleanCompat()
    decontamination: Decontamination = Decontamination()
    benchmarks: dict[Name, dict[Name, str]] = {}
    """{suite: {task: file}} of all suites of the recipe that have files; filled by the graph."""
    seed: int
