"""Initial weights: each tensor is drawn from a hash of the seed and its own name.

Neither order, nor number of tensors, nor platform can change a tensor: Philox counters give 64-bit words, and what
follows is exact integer and correctly rounded IEEE arithmetic. No logarithm or cosine of some libm takes part, so
the draws are uniform, not normal.
"""

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.recipe.create import CreateSpec, LlamaShape

_BITS = 24
"""Random bits of a weight: as many as the significand of float32."""
_WORDS = 1 << 20
"""Words drawn at a time: 8 MiB, whatever the tensor's size."""


def llama_shapes(shape: LlamaShape, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of LlamaForCausalLM's state dict, in its own order (untied lm_head, no inv_freq)."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    narrow = hidden // shape.num_attention_heads * shape.num_key_value_heads
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab_size, hidden)}
    for layer in range(shape.num_hidden_layers):
        parts: dict[str, tuple[int, ...]] = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (narrow, hidden),
            "self_attn.v_proj": (narrow, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        shapes.update({f"model.layers.{layer}.{part}.weight": size for part, size in parts.items()})
    return {**shapes, "model.norm.weight": (hidden,), "lm_head.weight": (vocab_size, hidden)}


def initial_weight(name: str, shape: tuple[int, ...], seed: int, deviation: float) -> NDArray[np.float32]:
    """Return one tensor: ones for norms, else uniform in +-sqrt(3) * deviation, so with that standard deviation."""
    if len(shape) == 1:
        return np.ones(shape, dtype=np.float32)
    key = hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=16).digest()
    source = np.random.Philox(key=np.frombuffer(key, dtype="<u8").astype(np.uint64))
    count = math.prod(shape)
    values = np.empty(count, dtype=np.float32)
    scale = math.sqrt(3.0) * deviation / (1 << _BITS)
    for start in range(0, count, 2 * _WORDS):
        stop = min(start + 2 * _WORDS, count)
        words = source.random_raw((stop - start + 1) // 2).astype("<u8").view("<u4")[: stop - start]
        # Odd numbers from -(2^24 - 1) to 2^24 - 1: symmetric about zero, and never zero.
        odd = ((words >> (32 - _BITS)).astype(np.int64) << 1) - ((1 << _BITS) - 1)
        values[start:stop] = odd * scale
    return values.reshape(shape)


def as_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bits of finite float32 values as bfloat16, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)


def write_weights(path: Path, shapes: dict[str, tuple[int, ...]], spec: CreateSpec) -> int:
    """Write all tensors as one safetensors file with metadata {"format": "pt"}; return the number of parameters.

    One tensor at a time is in memory. (The library's own writer wants all of them, and numpy has no bfloat16.)
    """
    code, width = {"float32": ("F32", 4), "bfloat16": ("BF16", 2), "float16": ("F16", 2)}[spec.dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        stop = offset + width * math.prod(shape)
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns its data to 8 bytes
    with path.open("wb") as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            values = initial_weight(name, shape, spec.seed, spec.architecture.initializer_range)
            handle.write(_stored(values, spec.dtype))
    return sum(math.prod(shape) for shape in shapes.values())


def _stored(values: NDArray[np.float32], dtype: str) -> bytes:
    """Return little-endian bytes in the model's dtype."""
    if dtype == "bfloat16":
        return as_bfloat16(values).astype("<u2").tobytes()
    return values.astype("<f2" if dtype == "float16" else "<f4").tobytes()
