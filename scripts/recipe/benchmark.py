"""Benchmarks: suites of multiple-choice tasks, the data sets behind them, and held-out loss in bits per byte."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from scripts.recipe.base import Count, Name, Spec, Strict
from scripts.recipe.checkpoints import candidate
from scripts.recipe.fetch import Fetch, RelativePath

MIX_FORMATS = frozenset({"bits_per_byte", "next_turn", "refusal", "generation", "extraction"})
"""Formats that read the recipe's mixtures instead of a file."""


class Task(Strict):
    """One row of a benchmark table."""

    format: Literal[
        "multiple_choice",
        "truthfulqa_mc1",
        "truthfulqa_mc2",
        "ollv1_truthfulqa_mc1",
        "ollv1_truthfulqa_mc2",
        "bigbench",
        "agieval",
        "arc",
        "hellaswag",
        "mmlu",
        "boolq",
        "openbookqa",
        "piqa",
        "winogrande",
        "lm_eval",
        "lm_eval_mc1",
        "lm_eval_mc2",
        "bits_per_byte",
        "next_turn",
        "refusal",
        "generation",
        "extraction",
    ]
    """How the file is rendered into frozen prompts, and how it is scored. `lm_eval`, `lm_eval_mc1` and `lm_eval_mc2`
    leave the prompts to a task of the installed lm-eval; see docs/benchmarks.md."""
    dataset: Name | None = None
    """Data set of `config/datasets/` that holds the files; without it the suite's own `fetch` does."""
    file: str | None = None
    """File of the data; none for `lm_eval`, `bits_per_byte` and the role-play formats,
    which read the mixtures."""
    shots: Annotated[int, Field(ge=0)] = 0
    """Solved examples before each question."""
    shots_file: str | None = None
    """File of the data that holds the solved examples."""
    lm_eval: RelativePath | None = None
    """The task's YAML inside lm-eval's own folder of tasks, such as `arc/arc_challenge.yaml`."""
    bos: bool | None = None
    """Whether contexts begin with BOS; without it the format decides. Recorded in the results."""
    metrics: list[str] = []
    """Metrics to keep, the first one counts right items; empty keeps all that the format has."""
    group: Name | None = None
    """Row of the table that means over this task and the others of the same group (MMLU's 57 subjects)."""
    limit: Count | None = None
    """Score only the first so many items (in the order of the protocol: the file's, or the old harness' shuffle)."""
    expect_items: Count | None = None
    """Stop if the rendered file holds another number of items: data drift."""
    split: Literal["validation", "train"] = "validation"
    """Rows of the mixtures that `extraction` and `generation` read."""
    turns: Count = 3
    """Replies a conversation that `generation` asks for."""
    max_new_tokens: Count = 128
    """Where a reply of `generation` is cut off."""
    note: str = ""
    """What a reader of the row should know."""
    upstream_bug: str = ""
    """Known error of the data or of the published figure, shown as a badge."""

    @model_validator(mode="after")
    def _files(self) -> Self:
        if self.format.startswith("lm_eval") != (self.lm_eval is not None):
            raise ValueError("lm_eval names the YAML of a task of lm-eval: needed for the formats lm_eval... only")
        if self.format.startswith("lm_eval") and self.dataset is None:
            raise ValueError("needs dataset: a task of lm-eval reads a hub-shaped folder")
        if self.shots and self.shots_file is None and not self.format.startswith("lm_eval"):
            raise ValueError(f"shots is {self.shots}; needs shots_file, the file of the solved examples")
        if self.shots_file is not None and not self.shots:
            raise ValueError("shots_file is given, but shots is 0; set shots or remove the file")
        return self


class DataSet(Strict):
    """One benchmark data set: `config/datasets/<name>.yaml`, or an entry of the recipe's `datasets`."""

    title: str
    """Name for people."""
    license: str
    """SPDX identifier where there is one, else the publisher's words."""
    note: str = ""
    """What is known of this copy."""
    fetch: Fetch
    """Where the files are; laid out as on the hub, so that `datasets.load_dataset(folder)` reads them offline."""


class BenchmarkSpec(Spec):
    """One suite on one model. Inputs: the model (or the shards), the suite's download if any, held-out mixtures."""

    model: Name
    checkpoint: Annotated[Count | None, Field(exclude_if=lambda step: step is None)] = None
    """Step of the model's training whose kept weights are measured; None for the model itself."""
    suite: Name
    protocol: str = ""
    tasks: dict[Name, Task]
    mixtures: list[Name] = []
    """Mixtures that tasks of MIX_FORMATS read."""
    max_length: Annotated[int, Field(ge=16)] = 4096
    """Longest context plus continuation, in tokens."""
    batch_size: Count = 8
    """Most items computed together. Fixed: never chosen from free memory, since it changes the last bits."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    device: Literal["cpu", "cuda"] = "cuda"
    portable_cpu: bool = False
    """Pin the CPU code paths, as in training."""
    shards: Count = 1
    """Into how many jobs the suite is cut; results don't depend on it."""
    shard: Annotated[int, Field(ge=0)] | None = None
    """Which of them this job is, from 0; None for the whole suite, or for the job that joins the shards."""

    @property
    def subject(self) -> str:
        """What is measured: `MODEL`, or `MODEL@STEP`."""
        return candidate(self.model, self.checkpoint)

    @property
    def combines(self) -> bool:
        """Whether this job joins shards: it needs no model and no GPU."""
        return self.shards > 1 and self.shard is None
