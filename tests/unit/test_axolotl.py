"""Importing axolotl files: every key has a fate, and the announced run gives its recipe."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.recipe.__main__ import main
from scripts.recipe.axolotl import import_axolotl
from tests.conftest import ROOT

# Keys and values of the announced run.
ANNOUNCED: dict[str, Any] = {
    "base_model": "meta-llama/Llama-2-13b-hf",
    "base_model_config": "meta-llama/Llama-2-13b-hf",
    "model_type": "LlamaForCausalLM",
    "tokenizer_type": "LlamaTokenizer",
    "tokenizer_use_fast": True,
    "tokenizer_legacy": True,
    "load_in_8bit": False,
    "load_in_4bit": False,
    "strict": False,
    "hf_use_auth_token": True,
    "datasets": [{"path": "data", "type": "metharme", "data_files": ["rows.jsonl"]}],
    "dataset_prepared_path": "last_prepared_run",
    "val_set_size": 0.01,
    "sequence_len": 4096,
    "sample_packing": True,
    "wandb_project": "project",
    "wandb_entity": "entity",
    "output_dir": "checkpoints",
    "gradient_accumulation_steps": 1,
    "micro_batch_size": 8,
    "num_epochs": 4,
    "optimizer": "adamw_torch",
    "adam_beta2": 0.95,
    "adam_eps": 0.000000001,
    "max_grad_norm": 1.0,
    "torchdistx_path": None,
    "lr_scheduler": "cosine",
    "lr_quadratic_warmup": True,
    "learning_rate": 0.000017,
    "train_on_inputs": True,
    "group_by_length": False,
    "bf16": True,
    "fp16": False,
    "tf32": True,
    "gradient_checkpointing": True,
    "logging_steps": 1,
    "xformers_attention": None,
    "flash_attention": True,
    "warmup_steps": 32,
    "eval_steps": 64,
    "save_steps": 256,
    "save_total_limit": 50,
    "weight_decay": 0.1,
    "special_tokens": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "fsdp": ["full_shard", "auto_wrap"],
    "fsdp_config": {
        "fsdp_sync_module_states": True,
        "fsdp_offload_params": True,
        "fsdp_state_dict_type": "FULL_STATE_DICT",
        "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
    },
}


def _write(folder: Path, **changed: Any) -> Path:
    path = folder / "axolotl.yaml"
    path.write_text(yaml.safe_dump({**ANNOUNCED, **changed}, sort_keys=False), encoding="utf-8")
    return path


def test_the_announced_file_gives_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    path = _write(tmp_path)
    command = ["recipe", "import-axolotl", str(path), "--model", "pygmalion-2-13b", "--mixture", "metharme-2"]
    monkeypatch.setattr("sys.argv", command)
    assert main() == 0
    shown = capsys.readouterr()
    recipe = yaml.safe_load((ROOT / "config" / "pygmalion-2-13b.yaml").read_text(encoding="utf-8"))
    assert yaml.safe_load(shown.out)["models"]["pygmalion-2-13b"] == recipe["models"]["pygmalion-2-13b"]
    assert "ignored     adam_eps: its code reads adam_epsilon, so 1e-8 ran" in shown.err
    assert "not carried over" not in shown.err


def test_every_key_has_exactly_one_fate(tmp_path: Path) -> None:
    notes = import_axolotl(_write(tmp_path), mixture="m", preset="corrected", gpus=8).notes
    flat = [k for k in ANNOUNCED if k != "fsdp_config"] + [f"fsdp_config.{k}" for k in ANNOUNCED["fsdp_config"]]
    assert sorted(key for key, _, _ in notes) == sorted(flat)
    assert {fate for _, fate, _ in notes} == {"taken", "renamed", "fixed", "elsewhere", "ignored"}


def test_what_cannot_be_carried_over_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    path = _write(tmp_path, adapter="lora", load_in_4bit=True, learning_rates=1e-5, deepspeed=False)
    monkeypatch.setattr("sys.argv", ["recipe", "import-axolotl", str(path)])
    assert main() == 1
    shown = capsys.readouterr()
    assert yaml.safe_load(shown.out)["models"]["my-model"]["train"]["optimizer"]["learning_rate"] == 1.7e-5
    assert "unsupported adapter" in shown.err
    assert "unsupported load_in_4bit: found True; only False can be trained here" in shown.err
    assert (
        'unknown     learning_rates: no key of axolotl that is known here; did you mean "learning_rate"?' in shown.err
    )
    assert "not carried over: load_in_4bit, adapter, learning_rates" in shown.err


def test_numbers_written_as_text_and_other_names(tmp_path: Path) -> None:
    path = _write(tmp_path, learning_rate="1e-5", adam_epsilon="1e-8", flash_attention=False, bf16=False)
    train = import_axolotl(path, mixture="m", preset="corrected", gpus=4).train
    assert train["optimizer"]["learning_rate"] == 1e-5
    assert train["optimizer"]["adam_eps"] == 1e-8
    assert train["numerics"] == {"precision": "fp32", "tf32": True, "gradient_checkpointing": True, "attention": "sdpa"}
    assert train["launch"]["processes_per_node"] == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base_model": None}, "base_model: missing"),
        ({"micro_batch_size": "many"}, "micro_batch_size: found 'many'"),
        ({"lr_scheduler": "linear"}, "lr_scheduler: found 'linear'; allowed: cosine"),
    ],
)
def test_bad_values_are_one_message(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        import_axolotl(_write(tmp_path, **changed), mixture="m", preset="corrected", gpus=8)
