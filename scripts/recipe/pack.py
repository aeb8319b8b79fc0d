"""Packing: token ids, labels and the whole schedule (step, rank) -> rows."""

from typing import Annotated, Literal

from pydantic import Field

from scripts.recipe.base import Count, Name, Spec, Strict


class PackSettings(Strict):
    """How rows become token ids and steps. Preset `as-released` restores what the original run did."""

    sequence_len: Count = 4096
    """Longest row and capacity of one bin, in tokens (Hugging Face: `max_length`)."""
    micro_batch_size: Count = 8
    """Bins of `sequence_len` for each process and step (Hugging Face: `per_device_train_batch_size`)."""
    gradient_accumulation_steps: Count = 1
    """Micro-batches of each process before the optimizer steps."""
    num_epochs: Count = 4
    """Passes over the mixture."""
    train_on_inputs: bool = True
    """Also learn the user's and system's text, as the announced run did."""
    packing: Literal["best_fit", "consecutive"] = "best_fit"
    """`best_fit`: best-fit decreasing into bins of `sequence_len`; `consecutive`: shuffled rows in order
    until `sequence_len * micro_batch_size` is full, as the original run did."""
    tokenization: Literal["turns", "halves"] = "turns"
    """`turns`: each model turn is cut off, tokenized as what goes on after `<|model|>` and ended by one EOS, so that
    ids equal the chat template's; `halves`: all text before the last model turn in one piece, then that turn with
    a leading space, as the original run did (EOS only after the row; what is trained is the last turn alone)."""
    eos_count: Annotated[int, Field(ge=1, le=3)] = 1
    """End-of-sequence tokens after a row; the original run had 3."""
    boundary_label: Literal["ignore", "keep"] = "ignore"
    """Whether a row's last token learns to predict the next row's first, as in the original run."""
    epoch_len: Literal["all_rows", "rule_0.99"] = "all_rows"
    """`rule_0.99`: the original's step estimate, which drops at least 1 % of each epoch."""


class PackSpec(Spec):
    """One schedule. Inputs: the mixture, and the base model whose tokenizer is used."""

    model: Name
    mixture: Name
    base: Name
    settings: PackSettings
    processes: Count
    """World size: the schedule names rows for every (step, rank)."""
    seed: int
