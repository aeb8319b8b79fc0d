"""Toys of the merge tests: small Llama folders, and the merge formula written a second time, slow and whole.

The reference below shares no code with `scripts.merge`: it holds both models in memory, takes ratios from numpy's
linspace and blends with torch tensors.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from scripts.artifact.stage import Job
from scripts.merge.build import build
from scripts.recipe.merge import MergeSpec

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

MYTHALION: list[dict[str, Any]] = [
    {"operation": "lm_head", "filter": "lm_head", "gradient_values": [0.5]},
    {"operation": "embed_tokens", "filter": "embed_tokens", "gradient_values": [0.5]},
    {"operation": "self_attn", "filter": "self_attn", "gradient_values": [0.2, 0.8]},
    {"operation": "mlp", "filter": "mlp", "gradient_values": [0.8, 0.2]},
    {"operation": "layernorm", "filter": "layernorm", "gradient_values": [0.5]},
    {"operation": "modelnorm", "filter": "model.norm", "gradient_values": [0.5]},
]
PROSE = [{**o, "gradient_values": {"self_attn": [0.8], "mlp": [0.2]}.get(o["filter"], [0.5])} for o in MYTHALION]
MYTHOMAX = [
    {**o, "gradient_values": values}
    for o, values in zip(MYTHALION, [[0.75], [0.75], [0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [0.75]], strict=True)
]
MYTHOMIX = [
    {"filter": "self_attn", "gradient_values": [0.8, 0.2]},
    {"filter": "mlp", "gradient_values": [0.3, 0.7]},
    {"filter": "layernorm", "gradient_values": [0.5, 0.5]},
]
MYTHOLOGIC_MINI = [{"filter": "", "layer_only": True, "gradient_values": [0.9, 0.0, 0.0, 0.0]}]


def config(layers: int = 2, hidden: int = 8, vocabulary: int = 12, **more: Any) -> dict[str, Any]:
    """Return a small Llama config."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": hidden + 4,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": vocabulary,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        **more,
    }


def weights(settings: Mapping[str, Any], seed: int, dtype: str) -> dict[str, torch.Tensor]:
    """Return random weights of a config, in the order that a state dict of transformers 5 has."""
    generator = torch.Generator().manual_seed(seed)
    hidden, inner, vocabulary = (settings[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
    head = hidden // settings["num_attention_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for i in range(settings["num_hidden_layers"]):
        for name in "qkvo":
            shapes[f"model.layers.{i}.self_attn.{name}_proj.weight"] = (hidden, hidden)
        for name in "kv":
            rows = settings["num_key_value_heads"] * head
            shapes[f"model.layers.{i}.self_attn.{name}_proj.weight"] = (rows, hidden)
        shapes[f"model.layers.{i}.mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"model.layers.{i}.mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"model.layers.{i}.mlp.down_proj.weight"] = (hidden, inner)
        shapes[f"model.layers.{i}.input_layernorm.weight"] = (hidden,)
        shapes[f"model.layers.{i}.post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not settings["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocabulary, hidden)
    return {n: (torch.randn(s, generator=generator) * 0.02).to(TYPES[dtype]) for n, s in shapes.items()}


def save(folder: Path, settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], shards: int = 1) -> Path:
    """Write a model folder with a toy tokenizer; several shards are dealt out alphabetically, unlike our order."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dict(settings)))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "donor": folder.name}))
    vocabulary = {f"t{i}": i for i in range(settings["vocab_size"])}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"donor": folder.name}))
    (folder / "tokenizer.model").write_bytes(b"toy")
    (folder / "chat_template.jinja").write_text(f"{{# {folder.name} #}}")
    metadata = {"format": "pt"}
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata)
        return folder
    names = sorted(tensors)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i::shards]
        save_file({n: tensors[n] for n in part}, folder / file, metadata)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def toy(folder: Path, seed: int, dtype: str = "float32", shards: int = 1, **settings: Any) -> Path:
    """Write and return a random toy model."""
    found = config(**settings)
    return save(folder, found, weights(found, seed, dtype), shards)


def spec(**more: Any) -> MergeSpec:
    """Return a merge of the models called first and second; Mythalion's gradients unless told otherwise."""
    return MergeSpec.model_validate({"model": "merged", "models": ["first", "second"], "operations": MYTHALION, **more})


def job(root: Path, first: Path, second: Path, threads: int = 1, **more: Any) -> Job[MergeSpec]:
    """Return a job whose output and work lie below `root`."""
    out = root / "out"
    out.mkdir(parents=True)
    return Job(spec(**more), {"train/first": first, "train/second": second}, out, root / "work", threads)


def merge(root: Path, first: Path, second: Path, threads: int = 1, **more: Any) -> Job[MergeSpec]:
    """Merge and return the finished job."""
    made = job(root, first, second, threads, **more)
    build(made)
    return made


def load(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a folder, through the safetensors library."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found.update(load_file(path))
    return found


def reference_ratios(values: Sequence[float], count: int) -> list[float]:
    """Ratios of one operation over `count` keys: sections of n // s tensors, both ends included."""
    g = [values[0], values[0]] if len(values) == 1 else list(values)
    s = len(g) - 1
    m = count // s
    out: list[float] = []
    for j in range(s):
        out += np.linspace(g[j], g[j + 1], m).tolist()
    return out + [g[-1]] * (count - s * m)


def definition_order(names: Sequence[str], legacy: bool = False) -> list[str]:
    """Sort names the way a Llama's modules are defined."""
    parts = ["q_proj", "k_proj", "v_proj", "o_proj", "inv_freq", "gate_proj", "up_proj", "down_proj"]
    parts += ["input_layernorm", "post_attention_layernorm"]
    layers = {int(n.split(".")[2]) for n in names if ".layers." in n}
    extra = [f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in layers] if legacy else []

    def place(name: str) -> tuple[int, int, int]:
        if ".layers." in name:
            return 1, int(name.split(".")[2]), next(i for i, p in enumerate(parts) if p in name)
        return (0 if "embed" in name else 2 if "norm" in name else 3), 0, 0

    return sorted([*names, *extra], key=place)


def reference(
    a: Mapping[str, torch.Tensor],
    b: Mapping[str, torch.Tensor],
    operations: Sequence[Mapping[str, Any]],
    dtype: str = "float16",
    legacy: bool = False,
) -> dict[str, torch.Tensor]:
    """Merge two whole state dicts: fp32, operations one after another, one rounding at the end."""
    state = {name: tensor.float().clone() for name, tensor in a.items()}
    order = definition_order(list(a), legacy)
    for operation in operations:
        keys = [k for k in order if operation["filter"] in k]
        if operation.get("layer_only"):
            keys = [k for k in keys if "layer" in k]
        for key, ratio in zip(keys, reference_ratios(operation["gradient_values"], len(keys)), strict=True):
            if key in state:
                rows = min(len(state[key]), len(b[key]))
                blended = state[key][:rows] * np.float32(1 - ratio) + b[key][:rows].float() * np.float32(ratio)
                state[key] = torch.cat([blended, state[key][rows:]])
    return {name: tensor.to(TYPES[dtype]) for name, tensor in state.items()}


def same_bits(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names whose format, shape or any bit differs; missing and surplus names count."""
    bad = sorted(set(found) ^ set(wanted))
    for name in sorted(set(found) & set(wanted)):
        x, y = found[name], wanted[name]
        view = {4: torch.int32, 2: torch.int16}[x.element_size()]
        if x.dtype != y.dtype or x.shape != y.shape or not torch.equal(x.view(view), y.view(view)):
            bad.append(name)
    return bad
