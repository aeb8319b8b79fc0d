"""Digests of what training computes, operation by operation, and of a whole small training: one JSON line.

python -m tests.processors.probe FOLDER [--without-training]
"""

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from scripts.artifact.digest import hash_files, payload_files
from scripts.recipe.base import keyed_hash

ROWS, WIDTH, HEADS, VOCAB = 24, 64, 4, 96


def filled(*shape: int, name: str, scale: float = 1.0) -> Tensor:
    """Return floats of [-scale, scale) that depend on the name alone, by integer arithmetic alike everywhere."""
    numbers = [keyed_hash("probe", name, i) >> 40 for i in range(math.prod(shape))]
    return (torch.tensor(numbers, dtype=torch.float64) / (1 << 23) - 1.0).mul(scale).to(torch.float32).reshape(shape)


def digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes, 16 digits of it."""
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()[:16]


def operations() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return each kind of operation of the training path, as a function of an input `[rows, width]`."""
    weight, norm = filled(WIDTH, WIDTH, name="weight", scale=0.2), filled(WIDTH, name="norm")
    head, targets = filled(VOCAB, WIDTH, name="head"), torch.tensor([keyed_hash("t", i) % VOCAB for i in range(ROWS)])

    def attention(x: Tensor) -> Tensor:
        split = x.view(1, ROWS, HEADS, WIDTH // HEADS).transpose(1, 2)
        return functional.scaled_dot_product_attention(split, split * 0.5, split * 0.25, is_causal=True)

    def rms_norm(x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * norm

    return {
        "matmul": lambda x: x @ weight,
        "linear": lambda x: functional.linear(x, weight),
        "add": lambda x: x + norm,
        "mul": lambda x: x * norm,
        "div": lambda x: x / (norm.abs() + 1.0),
        "pow": lambda x: x.pow(2),
        "mean": lambda x: x.mean(-1),
        "sum": lambda x: x.sum(),
        "rsqrt": lambda x: torch.rsqrt(x.pow(2) + 1e-5),
        "exp": torch.exp,
        "log": lambda x: torch.log(x.abs() + 0.1),
        "sin": torch.sin,
        "cos": torch.cos,
        "sigmoid": torch.sigmoid,
        "silu": functional.silu,
        "softmax": lambda x: functional.softmax(x, -1),
        "log_softmax": lambda x: functional.log_softmax(x, -1),
        "rms_norm": rms_norm,
        "embedding": lambda x: functional.embedding(targets, head) + x,
        "attention": attention,
        "cross_entropy": lambda x: functional.cross_entropy(x @ head.T, targets, reduction="sum"),
    }


def probe_operations() -> dict[str, str]:
    """Return the digests of each operation's result and of its gradient."""
    found = {}
    for name, operation in operations().items():
        x = filled(ROWS, WIDTH, name="x", scale=2.0).requires_grad_()
        result = operation(x)
        result.backward(filled(*result.shape, name="upstream"))
        assert x.grad is not None
        found[name], found[f"{name} backward"] = digest(result), digest(x.grad)
    return found | probe_optimizer()


def probe_optimizer() -> dict[str, str]:
    """Return digests of the fused AdamW, of the clip factor and of the square root of the norm."""
    parameter = torch.nn.Parameter(filled(WIDTH, WIDTH, name="parameter"))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0.1, eps=1e-9, fused=True)
    for step in range(3):
        parameter.grad = filled(WIDTH, WIDTH, name=f"gradient {step}", scale=0.1)
        optimizer.step()
    squares = parameter.detach().square().sum(dtype=torch.float64)
    return {"fused AdamW": digest(parameter), "sum of squares": digest(squares)}


def train(folder: Path) -> dict[str, str]:
    """Train a Llama of 96 thousand parameters for three steps with the stage's own worker; return digests."""
    from tests.unit.train_fixtures import make_base, make_pack, make_spec, train_alone

    class Patch:
        """As much of pytest's monkeypatch as `train_alone` uses."""

        def setattr(self, where: Any, name: str, value: Any) -> None:
            setattr(where, name, value)

    one = {"launch": {"processes_per_node": 1, "portable_cpu": True}, "cadence": {"eval_steps": 2, "save_steps": 2}}
    base = make_base(folder / "base")
    pack = make_pack(folder / "pack", processes=1, steps=3, accumulation=1)
    out = train_alone(folder, make_spec(**one), base, pack, Patch())
    kept = [name for name in payload_files(out) if name.endswith((".safetensors", "metrics.jsonl"))]
    assert len(kept) == 2
    return {f"training {name}": digest_[:16] for name, digest_ in hash_files(out, kept).items()}


def main() -> None:
    """Print one JSON object."""
    capability = torch.backends.cpu.get_cpu_capability()
    pinned = os.environ.get("ATEN_CPU_CAPABILITY") == "avx2"
    assert not pinned or capability == "AVX2", f"ATen uses {capability}"
    torch.set_num_threads(1)
    found = probe_operations()
    if "--without-training" not in sys.argv:
        found |= train(Path(sys.argv[1]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
