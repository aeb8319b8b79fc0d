"""Pack: a mixture and a tokenizer -> token ids, labels, and which rows each (step, rank) reads. Training only obeys."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scripts.artifact.stage import Job, StageError
from scripts.pack.rows import Packed, pack_split
from scripts.pack.schedule import Schedule, Shape, train_schedule, validation_schedule
from scripts.recipe.compiled import keep_compiled
from scripts.recipe.pack import PackSpec
from scripts.recipe.start import arrow_alone
from scripts.recipe.tokenizer import Tokenizer, TokenizerError, load_tokenizer


def build(job: Job[PackSpec]) -> None:
    """Write the payload of `pack/<model>` (docs/formats.md).

    Raises:
        StageError: a tokenizer that can't be read or whose ids don't fit, a damaged mixture, or nothing to train on.
    """
    keep_compiled(job.compiled)
    arrow_alone()
    spec = job.spec
    base, mixture = job.named(spec.base), job.named(spec.mixture)
    tokenizer = _tokenizer(base)
    load = partial(load_tokenizer, base)
    try:
        train, validation = (
            pack_split(mixture, split, job.out, load, spec, job.threads) for split in ("train", "validation")
        )
    except TokenizerError as error:
        raise StageError(f"{mixture}: {error}") from None
    if not len(train.lengths):
        raise StageError(
            f"{mixture}: no training row is left: {train.too_long} rows are longer than sequence_len "
            f"{spec.settings.sequence_len}; raise it or give the mixture shorter rows"
        )
    shape = Shape.of(spec)
    schedule = train_schedule(train.lengths, shape, spec)
    checked = validation_schedule(validation.lengths, shape, spec)
    np.save(job.out / "schedule_offsets.npy", schedule.offsets)
    np.save(job.out / "schedule_rows.npy", schedule.rows)
    np.save(job.out / "validation_offsets.npy", checked.offsets)
    np.save(job.out / "validation_schedule.npy", checked.rows)
    summary = _summary(spec, tokenizer, train, validation, schedule)
    text = json.dumps(summary, indent=2, sort_keys=True, ensure_ascii=False)
    (job.out / "pack.json").write_text(text + "\n", encoding="utf-8")
    shown = ("steps", "train_rows", "train_tokens", "validation_rows", "validation_tokens", "dropped", "efficiency")
    job.counts.update({key: summary[key] for key in shown})


def _tokenizer(base: Path) -> Tokenizer:
    try:
        tokenizer = load_tokenizer(base)
        config = base / "config.json"
        rows = json.loads(config.read_text(encoding="utf-8")).get("vocab_size") if config.is_file() else None
    except ValueError as error:
        raise StageError(str(error)) from None
    if tokenizer.vocab_size > 1 << 16:
        raise StageError(f"{base}: {tokenizer.vocab_size:,} token ids; packed rows are 16-bit and hold at most 65,536")
    if isinstance(rows, int) and rows < tokenizer.vocab_size:
        raise StageError(
            f"{base}: the tokenizer has {tokenizer.vocab_size:,} ids, but config.json says vocab_size {rows:,}: "
            f"the model has no embedding for the rest; use the tokenizer that belongs to the model"
        )
    return tokenizer


def _summary(
    spec: PackSpec, tokenizer: Tokenizer, train: Packed, validation: Packed, schedule: Schedule
) -> dict[str, Any]:
    settings = spec.settings
    filled = int(train.lengths[schedule.rows].sum())
    slots = (len(schedule.offsets) - 1) * settings.micro_batch_size * settings.sequence_len
    return {
        **settings.model_dump(mode="json"),
        "model": spec.model,
        "mixture": spec.mixture,
        "processes": spec.processes,
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "steps": schedule.steps_per_epoch * settings.num_epochs,
        "steps_per_epoch": schedule.steps_per_epoch,
        "train_rows": len(train.lengths),
        "train_tokens": int(train.lengths.sum()),
        "trained_tokens": train.trained_tokens,
        "validation_rows": len(validation.lengths),
        "validation_tokens": int(validation.lengths.sum()),
        "dropped": {"too_long": train.too_long, "validation_too_long": validation.too_long},
        # Of the whole schedule, so the unfilled last step of each epoch counts; `packing_efficiency` is the packer's.
        "efficiency": filled / slots,
        "packing_efficiency": schedule.packing_efficiency,
        "sources": dict(sorted(train.sources.items())),
    }
