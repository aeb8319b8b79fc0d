"""The recipe file: what a user writes. `graph.py` turns it into jobs."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from scripts.recipe.base import Count, Name, Positive, Strict
from scripts.recipe.benchmark import DataSet, Task
from scripts.recipe.blind import BlindTest
from scripts.recipe.clean import Adapter, Decontamination, Filters, Generator, Purpose
from scripts.recipe.compat import Compat
from scripts.recipe.create import LlamaShape, TokenizerChoice
from scripts.recipe.fetch import Fetch
from scripts.recipe.merge import MergeSettings
from scripts.recipe.mix import Share
from scripts.recipe.pack import PackSettings
from scripts.recipe.prompt_format import FormatName
from scripts.recipe.release import ReleaseSettings
from scripts.recipe.train import Cadence, Launch, Levers, Numerics, Optimizer, Trackers


class Source(Strict):
    """One data source: `config/sources/<name>.yaml`, or an entry of the recipe's `sources`."""

    title: str
    """Name for people."""
    license: str
    """SPDX identifier where there is one, else the publisher's words."""
    redistributable: bool
    """Whether rows of it may be published again."""
    private: bool = False
    """Not obtainable: a user who has it names the file in `fetch`."""
    purpose: Purpose = "instruction"
    """What it teaches; the generator policy is about role-play."""
    generator: Generator = "unknown"
    """Who wrote the answers, where rows don't say it themselves."""
    known_problems: list[str] = []
    """What a reader of the report should know."""
    fetch: Fetch | None = None
    """Where the raw files are; only a private source may lack it."""
    read: Adapter
    """Which adapter reads the raw files, and its settings."""
    filters: Filters = Filters()
    """Which episodes are refused."""

    @model_validator(mode="after")
    def _fetchable(self) -> Self:
        if self.fetch is None and not self.private:
            raise ValueError("needs fetch: only a private source may lack it")
        return self


class Suite(Strict):
    """One benchmark suite: `config/suites/<name>.yaml`, or an entry of the recipe's `suites`."""

    title: str
    """Name for people."""
    protocol: str = ""
    """How prompts and scores are made, by one short name: figures of different protocols don't compare."""
    published_table: Name | None = None
    """Table of the files of `config/published/` whose rows have the same names as these tasks."""
    fetch: Fetch | None = None
    """Where the task files are, as far as they aren't in data sets of their own."""
    tasks: Annotated[dict[Name, Task], Field(min_length=1)]
    """The rows of the benchmark table, by name."""


class Mixture(Strict):
    """What the fine-tunes read."""

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
    expected_tokens: Count | None = None
    """Training tokens of one epoch, as far as known before packing: read by the plan alone, changes no artifact."""
    sources: Annotated[dict[Name, Share], Field(min_length=1)]
    """What is taken of each source, by its name."""


class CreateModel(Strict):
    """A model made from a seed."""

    architecture: LlamaShape
    """Shape of the model."""
    tokenizer: TokenizerChoice
    """Where its tokenizer comes from."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights written."""


class TrainModel(Strict):
    """A fine-tune of `base` on `mixture`."""

    base: Name
    """Model that is fine-tuned."""
    mixture: Name
    """Mixture that it reads."""
    preset: Literal["corrected", "as-released"] = "corrected"
    """Defaults from `config/presets/`; keys given here win."""
    pack: PackSettings = PackSettings()
    """Rows, steps and epochs."""
    optimizer: Optimizer = Optimizer()
    """AdamW and the learning rate."""
    numerics: Numerics = Numerics()
    """Precision, memory and kernels."""
    cadence: Cadence = Cadence()
    """How often to evaluate, save and log."""
    levers: Levers = Levers()
    """What makes a step faster or smaller."""
    launch: Launch = Launch()
    """Processes and devices."""
    trackers: Trackers = ["tensorboard"]
    """Where the curves are shown live: `tensorboard`, `wandb`, both or none. Not part of the key."""
    max_shard_bytes: Count = 5_000_000_000
    """Largest weight file written."""


class MergeModel(MergeSettings):
    """A merge of two models of the table."""


class Model(Strict):
    """One row of the models table: downloaded, created, trained or merged."""

    download: Fetch | None = None
    """Take published weights."""
    create: CreateModel | None = None
    """Make a small model from the seed."""
    train: TrainModel | None = None
    """Fine-tune another model of the table."""
    merge: MergeModel | None = None
    """Merge two models of the table."""

    @property
    def kind(self) -> str:
        """The stage that makes the model."""
        return next(kind for kind in ("download", "create", "train", "merge") if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [way for way in ("download", "create", "train", "merge") if getattr(self, way) is not None]
        if len(ways) != 1:
            raise ValueError(f"needs exactly one of download, create, train, merge; found {', '.join(ways) or 'none'}")
        return self


class Benchmarks(Strict):
    """Which suites run on which models."""

    suites: list[Name] = []
    """Suites to run, by name."""
    models: list[Name] = []
    """Models to run them on."""
    max_length: Annotated[int, Field(ge=16)] = 4096
    """Longest context plus continuation, in tokens."""
    batch_size: Count = 8
    """Most items computed together. Fixed: never chosen from free memory, since it changes the last bits."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Type in which the model computes."""
    device: Literal["cpu", "cuda"] = "cuda"
    """Where it computes."""
    portable_cpu: bool = False
    """Pin the CPU code paths, as in training."""
    shards: Count = 1
    """Jobs a suite and model, each with its own checkpoint and GPU; the results are the same bytes for any number."""


class Recipe(Strict):
    """One recipe file: a mixture or several, a table of models, and what to measure."""

    name: Name
    """Folder under `results/` and name of the lock."""
    title: str = ""
    """Name for people; the report's headline."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The only seed; every choice is a keyed hash of it."""
    compat: Compat = Compat()
    """`original`, or single switches: defects of the original builder to reproduce. The minors gate stays on."""
    sources: dict[Name, Source] = {}
    """Sources of this recipe alone, beside the files of `config/sources/`."""
    suites: dict[Name, Suite] = {}
    """Suites of this recipe alone, beside the files of `config/suites/`."""
    decontamination: Decontamination = Decontamination()
    """What happens to rows that quote one of the recipe's benchmarks."""
    datasets: dict[Name, DataSet] = {}
    """Benchmark data sets of this recipe alone, beside the files of `config/datasets/`."""
    mixtures: dict[Name, Mixture] = {}
    """Mixtures of data, by name."""
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    """The table of models, by name; chains are just names."""
    benchmark: Benchmarks = Benchmarks()
    """What is measured on which models."""
    published: list[Name] = []
    """Files of `config/published/` with figures to print beside ours; each names the model it is about."""
    price_per_gpu_hour: Positive | None = None
    """What one GPU costs an hour, in any currency: read by dry runs and the plan alone, changes no artifact."""
    release: ReleaseSettings = ReleaseSettings()
    """What is written about finished models, and in which forms they are given away."""
    blind_test: BlindTest | None = None
    """The page on which people compare models without their names."""
