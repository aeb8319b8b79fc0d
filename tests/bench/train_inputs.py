"""A small Llama and a packed schedule of real text, for the training benches."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scripts.artifact.digest import SUMS, format_sums, hash_files, payload_files
from scripts.pack.best_fit import best_fit

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""9.8 million parameters, 8.2 million of them in the two matrices of the vocabulary."""


def real_rows(data: Path, tokens: int, longest: int) -> list[list[int]]:
    """Return rows of real text by the Llama-2 tokenizer: BOS, 60 to `longest` tokens of varied number, EOS."""
    from sentencepiece import SentencePieceProcessor

    tokenizer = SentencePieceProcessor(model_file=str(data / "llama2_tokenizer.model"))
    text = (data / "text" / "text_adventures.txt").read_text(encoding="utf-8")
    ids: list[int] = tokenizer.encode(text[: tokens * 5])
    lengths = np.random.default_rng(5).gamma(2.0, 180.0, len(ids)).astype(int).clip(60, longest - 2)
    rows, at = [], 0
    for length in lengths:
        if at >= min(tokens, len(ids) - longest):
            return rows
        rows.append([1, *ids[at : at + int(length)], 2])
        at += int(length)
    return rows


def random_rows(tokens: int, length: int, vocabulary: int) -> list[list[int]]:
    """Return rows of equal length and random ids, `tokens` in all."""
    random = np.random.default_rng(6)
    return [random.integers(3, vocabulary, length).tolist() for _ in range(tokens // length)]


def write_base(folder: Path, config: dict[str, Any], device: str = "cpu", dtype: str = "float32") -> Path:
    """Write a model folder with random weights."""
    import torch
    from safetensors.torch import save_file
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    folder.mkdir(parents=True)
    torch.manual_seed(7)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**config)).to(getattr(torch, dtype))
    tensors = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return _sealed(folder)


def write_pack(
    folder: Path, rows: list[list[int]], capacity: int, processes: int, vocabulary: int, accumulation: int = 1
) -> list[list[int]]:
    """Write a pack artifact without held-out rows, best-fit bins of `capacity`; return the rows of each micro-batch."""
    folder.mkdir(parents=True)
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    offsets, order = best_fit(lengths, capacity)
    bins = [order[a:b].tolist() for a, b in pairwise(offsets)]
    steps = len(bins) // (processes * accumulation)
    bins = bins[: steps * processes * accumulation]
    for split, chosen in (("train", rows), ("validation", [])):
        ids = np.array([t for row in chosen for t in row], dtype=np.uint16)
        np.save(folder / f"{split}_input_ids.npy", ids)
        np.save(folder / f"{split}_trained.npy", np.ones(len(ids), np.uint8))
        np.save(folder / f"{split}_rows.npy", np.cumsum([0, *(len(row) for row in chosen)]).astype(np.int64))
        names = pa.table({"id": [f"row-{r}" for r in range(len(chosen))], "source": ["text"] * len(chosen)})
        pq.write_table(names, folder / f"{split}_row_ids.parquet")
    np.save(folder / "schedule_offsets.npy", np.cumsum([0, *map(len, bins)]).astype(np.int64))
    np.save(folder / "schedule_rows.npy", np.array([r for b in bins for r in b], dtype=np.int32))
    np.save(folder / "validation_offsets.npy", np.zeros(1, np.int64))
    np.save(folder / "validation_schedule.npy", np.zeros(0, np.int32))
    facts = {"model": "tuned", "vocab_size": vocabulary, "bos_id": 1, "eos_id": 2, "processes": processes}
    facts |= {"gradient_accumulation_steps": accumulation, "steps": steps, "steps_per_epoch": steps}
    facts |= {"train_rows": len(rows), "validation_rows": 0, "boundary_label": "ignore"}
    (folder / "pack.json").write_text(json.dumps(facts), encoding="utf-8")
    _sealed(folder)
    return bins


def _sealed(folder: Path) -> Path:
    (folder / SUMS).write_text(format_sums(hash_files(folder, payload_files(folder))), encoding="utf-8")
    return folder
