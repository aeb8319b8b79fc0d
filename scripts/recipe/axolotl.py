"""`python -m scripts.recipe import-axolotl FILE`: an axolotl YAML as a recipe's training part, key by key.

What axolotl does with each key was read in its code of late August 2023 (commit 35130711d), which ran the announced
training; later names of the same settings are known too.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from scripts.recipe.models import TrainModel
from scripts.recipe.problems import from_validation, nearest
from scripts.recipe.yamlfile import load_yaml

# Same name, same meaning: section by key.
TAKEN = {
    "sequence_len": "pack",
    "micro_batch_size": "pack",
    "gradient_accumulation_steps": "pack",
    "num_epochs": "pack",
    "train_on_inputs": "pack",
    "learning_rate": "optimizer",
    "lr_scheduler": "optimizer",
    "warmup_steps": "optimizer",
    "lr_quadratic_warmup": "optimizer",
    "adam_beta1": "optimizer",
    "adam_beta2": "optimizer",
    "weight_decay": "optimizer",
    "max_grad_norm": "optimizer",
    "tf32": "numerics",
    "gradient_checkpointing": "numerics",
    "logging_steps": "cadence",
    "eval_steps": "cadence",
    "save_steps": "cadence",
    "save_total_limit": "cadence",
}
_FLOATS = {"learning_rate", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm"}

IGNORED = {
    "adam_eps": "its code reads adam_epsilon, so 1e-8 ran; here the preset decides (corrected 1e-9, as-released 1e-8)",
    "tokenizer_use_fast": "LlamaTokenizer is the slow class, whatever this says",
    "special_tokens": "Llama 2 has these tokens already",
    "strict": "read by no code that trains",
}
"""Keys that axolotl itself reads nowhere, or without effect on a Llama 2 fine-tune."""

ELSEWHERE = {
    "base_model_config": "the base's own config.json is used",
    "datasets": "write sources and a mixture: config/README.md",
    "val_set_size": "mixtures.<name>.val_set_size",
    "dataset_prepared_path": "every artifact is kept by its key",
    "output_dir": "results/<recipe>/train/<model>",
    "hf_use_auth_token": "HF_TOKEN in the environment",
    "wandb_project": "metrics.jsonl in the artifact",
    "wandb_entity": "metrics.jsonl in the artifact",
    "wandb_watch": "metrics.jsonl in the artifact",
    "wandb_run_id": "metrics.jsonl in the artifact",
    "wandb_log_model": "metrics.jsonl in the artifact",
    "seed": "the recipe's seed",
}
"""Keys whose matter another part of the recipe decides."""

# The only value that can be trained here, for keys that would change the training otherwise.
FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("LlamaForCausalLM", "AutoModelForCausalLM"),
    "tokenizer_type": ("LlamaTokenizer", "AutoTokenizer"),
    "is_llama_derived_model": (True,),
    "tokenizer_legacy": (True,),
    "load_in_8bit": (False,),
    "load_in_4bit": (False,),
    "fp16": (False,),
    "group_by_length": (False,),
    "sample_packing": (True,),
    "pad_to_sequence_len": (True, False),
    "eval_sample_packing": (True,),
    "optimizer": ("adamw_torch", "adamw_torch_fused", "adamw_hf"),
    "fsdp": (["full_shard", "auto_wrap"],),
    "fsdp_version": (2,),
    "fsdp_config.fsdp_sync_module_states": (True,),
    "fsdp_config.fsdp_state_dict_type": ("FULL_STATE_DICT", "SHARDED_STATE_DICT"),
    "fsdp_config.fsdp_transformer_layer_cls_to_wrap": ("LlamaDecoderLayer",),
    "fsdp_config.fsdp_use_orig_params": (True, False),
    "fsdp_config.fsdp_limit_all_gathers": (True, False),
}

UNSUPPORTED = (
    "adapter",
    "lora_model_dir",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_target_linear",
    "lora_fan_in_fan_out",
    "gptq",
    "deepspeed",
    "neftune_noise_alpha",
    "rope_scaling",
    "early_stopping_patience",
    "torchdistx_path",
    "resume_from_checkpoint",
    "auto_resume_from_checkpoints",
    "local_rank",
    "lr_scheduler_kwargs",
    "relora_steps",
    "evals_per_epoch",
    "saves_per_epoch",
    "warmup_ratio",
    "max_steps",
    "max_packed_sequence_len",
    "chat_template",
    "rl",
    "debug",
    "unfrozen_parameters",
    "sample_packing_eff_est",
)
"""Known settings of axolotl that have no counterpart; one that is empty or off changes nothing."""
_SPECIAL = ("base_model", "bf16", "flash_attention", "sdp_attention", "xformers_attention", "adam_epsilon")
_OFFLOAD = "fsdp_config.fsdp_offload_params"
_SECTIONS = ("pack", "optimizer", "numerics", "cadence")


@dataclass
class Import:
    """The training part, and what became of each key."""

    train: dict[str, Any] = field(default_factory=dict)
    notes: list[tuple[str, str, str]] = field(default_factory=list)
    """(key, what became of it, why): taken, renamed, fixed, elsewhere, ignored, unsupported, unknown."""

    @property
    def lost(self) -> list[str]:
        """Keys that would change the training and can't be carried over."""
        return [key for key, fate, _ in self.notes if fate in ("unsupported", "unknown")]


def import_axolotl(path: Path, *, mixture: str, preset: str, gpus: int) -> Import:
    """Return the training part of a recipe for an axolotl file.

    Args:
        path: axolotl's YAML.
        mixture: name of the recipe's mixture; axolotl's data sets are written as sources instead.
        preset: `corrected` or `as-released`.
        gpus: processes; axolotl leaves them to `accelerate launch`.

    Raises:
        YamlError: the file is no plain YAML.
        ValueError: no table, no base model, or a value out of its range; the message names the key.
    """
    data, places = load_yaml(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds no table of keys")
    flat = {**{k: v for k, v in data.items() if k != "fsdp_config"}}
    flat |= {f"fsdp_config.{k}": v for k, v in (data.get("fsdp_config") or {}).items()}
    result = Import()
    sections: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
    for key, value in flat.items():
        result.notes.append((str(key), *_place(str(key), value, sections)))
    if not flat.get("base_model"):
        raise ValueError(f"{path}: base_model: missing; axolotl needs it too")
    if "adam_beta2" in sections["optimizer"]:
        sections["optimizer"].setdefault("adam_beta1", 0.9)  # Hugging Face's default, as good as written
    sections["numerics"].setdefault("attention", "sdpa")
    result.train = {"base": _model_name(str(flat["base_model"])), "mixture": mixture, "preset": preset, **sections}
    result.train["launch"] = {"device": "cuda", "nodes": 1, "processes_per_node": gpus, "threads_per_process": 4}
    try:
        TrainModel.model_validate(result.train)
    except ValidationError as error:
        raise ValueError("\n".join(from_validation(error, TrainModel, path, places))) from None
    return result


def _place(key: str, value: Any, sections: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """Put a key's value where it belongs; return (fate, why)."""
    if value is None or value == "":
        return "ignored", "empty"
    if key in TAKEN:
        sections[TAKEN[key]][key] = _number(value) if key in _FLOATS else value
        return "taken", f"{TAKEN[key]}.{key}"
    if key in _SPECIAL or key == _OFFLOAD:
        return _renamed(key, value, sections)
    for table, fate in ((IGNORED, "ignored"), (ELSEWHERE, "elsewhere")):
        if key in table:
            return fate, table[key]
    if key in FIXED:
        allowed = " or ".join(map(str, FIXED[key]))
        same = value in FIXED[key]
        return ("fixed", "as here") if same else ("unsupported", f"found {value!r}; only {allowed} can be trained here")
    if key in UNSUPPORTED:
        return ("ignored", "off") if value is False else ("unsupported", "no counterpart here")
    known = [*TAKEN, *_SPECIAL, _OFFLOAD, *IGNORED, *ELSEWHERE, *FIXED, *UNSUPPORTED]
    return "unknown", f"no key of axolotl that is known here{nearest(key, known)}"


def _renamed(key: str, value: Any, sections: dict[str, dict[str, Any]]) -> tuple[str, str]:
    numerics, optimizer = sections["numerics"], sections["optimizer"]
    if key == "base_model":
        return "renamed", f"base: {_model_name(str(value))}, a row of the table of models"
    if key == "adam_epsilon":
        optimizer["adam_eps"] = _number(value)
        return "renamed", "optimizer.adam_eps"
    if key == "bf16":
        if value is False:
            numerics["precision"] = "fp32"
            return "renamed", "numerics.precision: fp32"
        return "renamed", "numerics.precision, by the preset (corrected fp32_master, as-released pure_bf16)"
    if key == _OFFLOAD:
        return "renamed", f"numerics.fsdp_offload_params, by the preset; the plan says whether {value} is needed"
    if value is not True:
        return "renamed", "numerics.attention: not this kernel"
    numerics["attention"] = "torch_varlen" if key == "flash_attention" else "sdpa"
    return "renamed", f"numerics.attention: {numerics['attention']}"


def _number(value: Any) -> Any:
    """Return a number for texts such as 1e-5, which YAML 1.1 reads as text and axolotl converts."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _model_name(base: str) -> str:
    """Return `llama-2-13b` for `meta-llama/Llama-2-13b-hf`."""
    return base.rstrip("/").rsplit("/", 1)[-1].lower().removesuffix("-hf")


def as_yaml(name: str, imported: Import) -> str:
    """Return the row of the table of models."""
    dump: Callable[..., str] = yaml.safe_dump
    rows: Mapping[str, Any] = {"models": {name: {"train": imported.train}}}
    return dump(rows, sort_keys=False, allow_unicode=True)


def as_notes(imported: Import) -> str:
    """Return one line a key: what became of it, and why."""
    return "\n".join(f"{fate:<12}{key}: {why}" for key, fate, why in imported.notes)
