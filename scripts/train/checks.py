"""Refuse what can't be trained before any process starts: the base's config, the schedule, the settings."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from scripts.artifact.digest import ArtifactError
from scripts.artifact.foreign import foreign_code
from scripts.artifact.stage import StageError
from scripts.artifact.tensors import model_files, read_header
from scripts.recipe.train import CPU_ATTENTION, TrainSpec


def read_config(base: Path) -> dict[str, Any]:
    """Return the base's config.json, checked to describe a plain Llama (rules R3 and R5).

    Raises:
        StageError: unreadable, another architecture, keys that can run code, tied embeddings or dropout, or weights
            that are no valid safetensors files beside it.
    """
    path = base / "config.json"
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise StageError(f"{path}: cannot be read ({error}); rebuild the base model") from None
    if refused := foreign_code(base):
        raise StageError(refused)
    try:
        for weights in model_files(base):
            read_header(weights)
    except ArtifactError as error:
        raise StageError(f"{error}; training reads safetensors only") from None
    if config.get("architectures") != ["LlamaForCausalLM"] or config.get("model_type") != "llama":
        found = f"architectures {config.get('architectures')}, model_type {config.get('model_type')!r}"
        raise StageError(f"{path}: found {found}; only ['LlamaForCausalLM'] of type 'llama' can be trained")
    for key in ("tie_word_embeddings", "attention_dropout", "attention_bias", "mlp_bias"):
        if config.get(key):
            raise StageError(f"{path}: {key} is {config[key]}; Llama 2 models, which this stage trains, have none")
    return config


def read_pack(pack: Path, spec: TrainSpec, vocab_size: int) -> dict[str, Any]:
    """Return pack.json after checking that the schedule is whole and made for these processes.

    Raises:
        StageError: another number of processes, a vocabulary that the model lacks, or a damaged schedule.
    """
    path = pack / "pack.json"
    try:
        facts = dict(json.loads(path.read_text(encoding="utf-8")))
        steps, accumulation, processes = (int(facts[k]) for k in ("steps", "gradient_accumulation_steps", "processes"))
        tokens_vocabulary = int(facts["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"{path}: cannot be read ({error!r}); rebuild the pack artifact") from None
    world = spec.launch.processes
    if processes != world:
        raise StageError(f"{path}: schedule for {processes} processes, launch has {world}; pack again for {world}")
    if steps < 1:
        raise StageError(f"{path}: {steps} steps; the mixture is too small for one step, add rows or lower batch sizes")
    if tokens_vocabulary > vocab_size:
        text = f"vocabulary of {tokens_vocabulary}, the base model has {vocab_size}"
        raise StageError(f"{path}: {text}; pack with the base model's tokenizer")
    _check_schedule(pack, "schedule_offsets", "schedule_rows", "train_rows", steps * accumulation * world)
    batches = len(_load(pack, "validation_offsets")) - 1
    if batches % world:
        raise StageError(f"{pack}: {batches} evaluation batches don't divide among {world} processes; pack again")
    _check_schedule(pack, "validation_offsets", "validation_schedule", "validation_rows", batches)
    return facts


def check_settings(spec: TrainSpec, facts: dict[str, Any]) -> None:
    """Refuse settings that contradict each other or the schedule.

    Raises:
        StageError: the message names the key and the allowed values.
    """
    steps, warmup, numerics, cadence = facts["steps"], spec.optimizer.warmup_steps, spec.numerics, spec.cadence
    if warmup >= steps:
        text = f"the schedule has {steps} steps; allowed: 0 to {steps - 1}"
        raise StageError(f"optimizer.warmup_steps is {warmup}, {text}")
    if cadence.keep_checkpoints and cadence.keep_checkpoints[-1] > steps:
        text = f"{cadence.keep_checkpoints}, but the schedule has {steps} steps; allowed: 1 to {steps}"
        raise StageError(f"models.{spec.model}.train.cadence.keep_checkpoints is {text}; name earlier steps")
    _check_attention(numerics.attention, spec.launch.device)
    if cadence.final_ckpt == "best_eval":
        if not facts["validation_rows"]:
            raise StageError("cadence.final_ckpt is best_eval, but no row is held out; set val_set_size or use last")
        if cadence.save_steps % cadence.eval_steps:
            text = f"save_steps {cadence.save_steps} is no multiple of eval_steps {cadence.eval_steps}"
            raise StageError(f"cadence.final_ckpt is best_eval: {text}, so saved checkpoints would lack an evaluation")


def _check_attention(kernel: str, device: str) -> None:
    if device == "cpu" and kernel not in CPU_ATTENTION:
        allowed = " or ".join(CPU_ATTENTION)
        text = f"numerics.attention is {kernel}, which can't be trained without a GPU"
        raise StageError(f"{text}; launch.device is cpu: use {allowed}")
    package = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}.get(kernel)
    if package and find_spec(package) is None:
        text = f"numerics.attention is {kernel}, but the package {package} is not installed"
        raise StageError(f"{text}; install it, or use torch_varlen, flash attention as torch ships it")


def _load(pack: Path, name: str) -> Any:
    try:
        return np.load(pack / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StageError(f"{pack / name}.npy: cannot be read ({error}); rebuild the pack artifact") from None


def _check_schedule(pack: Path, offsets_name: str, rows_name: str, bounds_name: str, entries: int) -> None:
    offsets, rows, bounds = (_load(pack, name) for name in (offsets_name, rows_name, bounds_name))
    whole = len(offsets) == entries + 1 and offsets[0] == 0 and offsets[-1] == len(rows)
    if not whole or bool((np.diff(offsets) < 0).any()):
        text = f"{len(offsets)} offsets for {entries} micro-batches and {len(rows)} rows"
        raise StageError(f"{pack / offsets_name}.npy: {text}, or not rising; rebuild the pack artifact")
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= len(bounds) - 1):
        text = f"names row {int(rows.max())} of {len(bounds) - 1}"
        raise StageError(f"{pack / rows_name}.npy: {text}; rebuild the pack artifact")
