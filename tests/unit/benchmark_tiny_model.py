"""A tiny random Llama with a byte-level-safe tokenizer, made in the test: shared by the benchmark tests and bench."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from tests.demo_benchmarks import TASKS, text

_SEGMENTS = pa.list_(pa.struct([("text", pa.string()), ("trained", pa.bool_())]))


def write_tokenizer(folder: Path, vocab_size: int = 500) -> None:
    """Write a Llama-style BPE (metaspace, byte fallback, BOS before every text) trained on the demo's own tasks."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([line for task in TASKS for line in text(task).splitlines()], trainer)
    state = json.loads(tokenizer.to_str())["model"]
    llama = LlamaTokenizer(
        vocab=state["vocab"],
        merges=[tuple(pair) for pair in state["merges"]],
        unk_token=AddedToken("<unk>", special=True),
        bos_token=AddedToken("<s>", special=True),
        eos_token=AddedToken("</s>", special=True),
        add_bos_token=True,
        add_eos_token=False,
    )
    llama.save_pretrained(folder)


def write_model(folder: Path, hidden: int = 32, layers: int = 2, positions: int = 256) -> Path:
    """Write a random Llama with large weights, so that likelihoods differ clearly; return `folder`."""
    folder.mkdir(parents=True)
    write_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=500,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=positions,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = torch.empty_like(parameter).normal_(0, 0.2, generator=generator)
    model.save_pretrained(folder)
    return folder


def write_mix(folder: Path, rows: list[tuple[str, str, list[str]]]) -> Path:
    """Write a mix artifact's validation rows of (id, source, segment texts), and none to train on; return `folder`."""
    folder.mkdir(parents=True)
    (folder / "mix.json").write_text('{"format": "metharme"}')
    records = [
        {"id": i, "source": s, "segments": [{"text": t, "trained": n % 2 == 1} for n, t in enumerate(texts)]}
        for i, s, texts in rows
    ]
    schema = pa.schema([("id", pa.string()), ("source", pa.string()), ("segments", _SEGMENTS)])
    for split, found in (("validation", records), ("train", [])):
        pq.write_table(pa.Table.from_pylist(found, schema=schema), folder / f"{split}.parquet")
    return folder
