"""Benchmarks: suites of multiple-choice tasks, and held-out loss in bits per byte."""

from typing import Annotated, Literal

from pydantic import Field

from scripts.recipe.base import Count, Name, Spec, Strict

MIX_FORMATS = frozenset({"bits_per_byte", "next_turn", "refusal", "generation", "extraction"})
"""Formats that read the recipe's mixtures instead of a file."""


class Task(Strict):
    """One row of a benchmark table."""

    format: Literal[
        "multiple_choice",
        "truthfulqa_mc1",
        "truthfulqa_mc2",
        "bigbench",
        "agieval",
        "bits_per_byte",
        "next_turn",
        "refusal",
        "generation",
        "extraction",
    ]
    """How the file is rendered into frozen prompts, and how it is scored."""
    file: str | None = None
    """File of the suite's download; none for `bits_per_byte` and the role-play formats, which read the mixtures."""
    limit: Count | None = None
    """Score only the first so many items (in file order)."""
    expect_items: Count | None = None
    """Stop if the rendered file holds another number of items: data drift."""
    split: Literal["validation", "train"] = "validation"
    """Rows of the mixtures that `extraction` and `generation` read."""
    turns: Count = 3
    """Replies a conversation that `generation` asks for."""
    max_new_tokens: Count = 128
    """Where a reply of `generation` is cut off."""
    note: str = ""
    """Known upstream problem, shown as a badge."""


class BenchmarkSpec(Spec):
    """One suite on one model. Inputs: the model (or the shards), the suite's download if any, held-out mixtures."""

    model: Name
    suite: Name
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
    def combines(self) -> bool:
        """Whether this job joins shards: it needs no model and no GPU."""
        return self.shards > 1 and self.shard is None
