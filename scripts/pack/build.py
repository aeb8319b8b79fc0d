"""Pack: a mixture and a tokenizer -> token ids, labels, and which rows each (step, rank) reads. Training only obeys."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scripts.artifact.stage import Job, StageError
from scripts.pack.base import base_tokenizer
from scripts.pack.rows import Packed, pack_split
from scripts.pack.schedule import Schedule, Shape, train_schedule, validation_schedule
from scripts.recipe.compiled import keep_compiled
from scripts.recipe.pack import PackSpec
from scripts.recipe.start import arrow_alone
from scripts.recipe.tokenizer import Tokenizer, TokenizerError, load_tokenizer


def build(job: Job[PackSpec]) -> None:
    """Write the payload of `pack/<model>` (docs/formats.md).

    Raises:
        StageError: a tokenizer that can't be read or whose ids don't fit, a damaged mixture, a base with fewer
            positions than `sequence_len`, or nothing to train on, be it of one source.
    """
    keep_compiled(job.compiled)
    arrow_alone()
    spec = job.spec
    base, mixture = job.named(spec.base), job.named(spec.mixture)
    tokenizer = base_tokenizer(base, spec)
    load = partial(load_tokenizer, base)
    try:
        train, validation = (
            pack_split(mixture, split, job.out, load, spec, job.threads) for split in ("train", "validation")
        )
    except TokenizerError as error:
        raise StageError(f"{mixture}: {error}") from None
    _tell_too_long(mixture, train, validation, spec)
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
    job.counts.update({key: summary[key] for key in (*shown, "too_long_by_source") if key in summary})


def _tell_too_long(mixture: Path, train: Packed, validation: Packed, spec: PackSpec) -> None:
    """Print how many rows of each source are left out for their length.

    Raises:
        StageError: no training row is left, or none of a source: a mixture without it is another mixture.
    """
    length = spec.settings.sequence_len
    if not len(train.lengths):
        raise StageError(
            f"{mixture}: no training row is left: {train.too_long.total()} rows are longer than sequence_len "
            f"{length}; raise it or give the mixture shorter rows"
        )
    for split, packed in (("training", train), ("validation", validation)):
        for source, rows in sorted(packed.too_long.items()):
            every = rows + packed.sources.get(source, {"rows": 0})["rows"]
            text = f"{source}: {rows:,} of {every:,} {split} rows are longer than sequence_len {length}"
            if rows == every and packed is train:
                where = f"models.{spec.model}.train.pack.sequence_len"
                raise StageError(
                    f"{mixture}: {text}, so nothing of this source would be learned; raise {where}, cut the "
                    f"source into shorter conversations, or take it out of mixtures.{spec.mixture}.sources"
                )
            print(f"{text} and are left out", file=sys.stderr, flush=True)


def _summary(
    spec: PackSpec, tokenizer: Tokenizer, train: Packed, validation: Packed, schedule: Schedule
) -> dict[str, Any]:
    settings = spec.settings
    filled = int(train.lengths[schedule.rows].sum())
    slots = (len(schedule.offsets) - 1) * settings.micro_batch_size * settings.sequence_len
    lost = {"train": dict(sorted(train.too_long.items())), "validation": dict(sorted(validation.too_long.items()))}
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
        "dropped": {"too_long": train.too_long.total(), "validation_too_long": validation.too_long.total()},
        # Of the whole schedule, so the unfilled last step of each epoch counts; `packing_efficiency` is the packer's.
        "efficiency": filled / slots,
        "packing_efficiency": schedule.packing_efficiency,
        "sources": dict(sorted(train.sources.items())),
        # Only where rows were left out.
        **({"too_long_by_source": lost} if any(lost.values()) else {}),
    }
