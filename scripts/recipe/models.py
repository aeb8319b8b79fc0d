"""The recipe file: what a user writes. `graph.py` turns it into jobs."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from scripts.recipe.base import Count, Name, Strict
from scripts.recipe.benchmark import Task
from scripts.recipe.clean import Adapter, Filters
from scripts.recipe.create import LlamaShape, TokenizerChoice
from scripts.recipe.fetch import Fetch
from scripts.recipe.merge import Operation
from scripts.recipe.mix import Share
from scripts.recipe.pack import PackSettings
from scripts.recipe.train import Cadence, Launch, Numerics, Optimizer


class Source(Strict):
    """One data source: `config/sources/<name>.yaml`, or an entry of the recipe's `sources`."""

    title: str
    license: str
    """SPDX identifier where there is one, else the publisher's words."""
    redistributable: bool
    """Whether rows of it may be published again."""
    private: bool = False
    """Not obtainable: a user who has it names the file in `fetch`."""
    known_problems: list[str] = []
    fetch: Fetch | None = None
    read: Adapter
    filters: Filters = Filters()

    @model_validator(mode="after")
    def _fetchable(self) -> Self:
        if self.fetch is None and not self.private:
            raise ValueError("needs fetch: only a private source may lack it")
        return self


class Suite(Strict):
    """One benchmark suite: `config/suites/<name>.yaml`, or an entry of the recipe's `suites`."""

    title: str
    fetch: Fetch | None = None
    tasks: Annotated[dict[Name, Task], Field(min_length=1)]


class Mixture(Strict):
    """What the fine-tunes read."""

    format: Literal["metharme"] = "metharme"
    """Prompt format: how roles become text."""
    val_set_size: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of rows held out for evaluation."""
    val_split: Literal["hash", "file_tail"] = "hash"
    """`hash`: by keyed hash of the conversation; `file_tail`: the last rows, as the original run did."""
    sources: Annotated[dict[Name, Share], Field(min_length=1)]


class CreateModel(Strict):
    """A model made from a seed."""

    architecture: LlamaShape
    tokenizer: TokenizerChoice
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class TrainModel(Strict):
    """A fine-tune of `base` on `mixture`."""

    base: Name
    mixture: Name
    preset: Literal["corrected", "as-released"] = "corrected"
    """Defaults from `config/presets/`; keys given here win."""
    pack: PackSettings = PackSettings()
    optimizer: Optimizer = Optimizer()
    numerics: Numerics = Numerics()
    cadence: Cadence = Cadence()
    launch: Launch = Launch()
    max_shard_bytes: Count = 5_000_000_000
    """Largest weight file written."""


class MergeModel(Strict):
    """A merge of two models of the table."""

    models: Annotated[list[Name], Field(min_length=2, max_length=2)]
    """First and second model; gradient values are shares of the second."""
    operations: Annotated[list[Operation], Field(min_length=1)]
    out_dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    vocabulary: Literal["error", "first_model_rows"] = "error"
    legacy_inv_freq: bool = False
    uncovered: Literal["error", "first_model"] = "error"
    allow_compound: bool = False
    max_shard_bytes: Count = 2_097_152_000


class Model(Strict):
    """One row of the models table: downloaded, created, trained or merged."""

    download: Fetch | None = None
    create: CreateModel | None = None
    train: TrainModel | None = None
    merge: MergeModel | None = None

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
    models: list[Name] = []
    max_length: Annotated[int, Field(ge=16)] = 4096
    batch_size: Count = 8
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    device: Literal["cpu", "cuda"] = "cuda"
    portable_cpu: bool = False


class Recipe(Strict):
    """One recipe file: a mixture or several, a table of models, and what to measure."""

    name: Name
    """Folder under `results/` and name of the lock."""
    title: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    """The only seed; every choice is a keyed hash of it."""
    sources: dict[Name, Source] = {}
    """Sources of this recipe alone, beside the files of `config/sources/`."""
    suites: dict[Name, Suite] = {}
    """Suites of this recipe alone, beside the files of `config/suites/`."""
    mixtures: dict[Name, Mixture] = {}
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    benchmark: Benchmarks = Benchmarks()
    published: Name | None = None
    """File of `config/published/` with figures to print beside ours."""
