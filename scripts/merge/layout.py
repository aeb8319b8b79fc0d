"""The tensors of a LlamaForCausalLM: names in model definition order and shapes, from config values alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EMBED, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
INV_FREQ = ".self_attn.rotary_emb.inv_freq"


@dataclass(frozen=True)
class LlamaShapes:
    """Numbers that decide every shape."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "LlamaShapes":
        """Return the numbers of a config.json, with the defaults that transformers gives a Llama."""
        heads = int(config["num_attention_heads"])
        hidden = int(config["hidden_size"])
        return cls(
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            vocabulary=int(config["vocab_size"]),
            attention_bias=bool(config.get("attention_bias")),
            mlp_bias=bool(config.get("mlp_bias")),
        )


def llama_tensors(shapes: LlamaShapes) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} in model definition order: embed_tokens, layers (q, k, v, o, gate, up, down, two norms),
    norm, lm_head. 9 tensors a layer and 3 more: 363 for the 40 layers of a 13B."""
    s = shapes
    queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
    tensors: dict[str, tuple[int, ...]] = {EMBED: (s.vocabulary, s.hidden)}
    for layer in range(s.layers):
        at = f"model.layers.{layer}"
        for name, rows, columns in (
            ("q", queries, s.hidden),
            ("k", keys, s.hidden),
            ("v", keys, s.hidden),
            ("o", s.hidden, queries),
        ):
            tensors[f"{at}.self_attn.{name}_proj.weight"] = (rows, columns)
            if s.attention_bias:
                tensors[f"{at}.self_attn.{name}_proj.bias"] = (rows,)
        for name, rows, columns in (
            ("gate", s.intermediate, s.hidden),
            ("up", s.intermediate, s.hidden),
            ("down", s.hidden, s.intermediate),
        ):
            tensors[f"{at}.mlp.{name}_proj.weight"] = (rows, columns)
            if s.mlp_bias:
                tensors[f"{at}.mlp.{name}_proj.bias"] = (rows,)
        tensors[f"{at}.input_layernorm.weight"] = (s.hidden,)
        tensors[f"{at}.post_attention_layernorm.weight"] = (s.hidden,)
    tensors[NORM] = (s.hidden,)
    tensors[HEAD] = (s.vocabulary, s.hidden)
    return tensors


def gradient_keys(tensors: Mapping[str, tuple[int, ...]], legacy_inv_freq: bool) -> list[str]:
    """Return the keys that gradients count: all tensors and, as transformers below 4.32 listed them, the rotary
    buffer after each layer's o_proj (it shifts the ratios of self_attn by at most 0.0030 in 40 layers)."""
    keys: list[str] = []
    for name in tensors:
        if legacy_inv_freq and ".mlp.gate_proj.weight" in name:
            keys.append(name.replace(".mlp.gate_proj.weight", INV_FREQ))
        keys.append(name)
    return keys
