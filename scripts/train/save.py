"""Publishing: the trained weights as a Hugging Face model folder, gathered tensor by tensor."""

import json
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from scripts.artifact.digest import sha256_bytes
from scripts.train.model import whole_tensors
from scripts.train.tensorfile import DTYPE_NAMES, Planned, write_safetensors

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_COPIED = (
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
INDEX = "model.safetensors.index.json"


def save_model(
    model: nn.Module, mesh: DeviceMesh, base: Path, out: Path, *, out_dtype: str | None, max_shard_bytes: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Write the model folder; called by all ranks, written by rank 0.

    Args:
        base: model folder whose tokenizer and configuration are copied.
        out: folder to write to.
        out_dtype: `float32` or `bfloat16`, or None for the type that was trained.
        max_shard_bytes: largest weight file; a larger single tensor gets a file of its own.

    Returns:
        ({file: SHA-256}, {tensor: digest}) of what was hashed while it was written; empty on other ranks.
    """
    parameters = sorted(model.named_parameters())
    dtype = _DTYPES[out_dtype] if out_dtype else parameters[0][1].dtype
    plan = [Planned(name, DTYPE_NAMES[dtype], tuple(p.shape)) for name, p in parameters]
    tensors = (tensor.to(dtype) for _, tensor in whole_tensors(model, mesh))
    if mesh.get_local_rank() != 0:
        for _ in tensors:
            pass
        return {}, {}
    files, digests = _write_shards(out, plan, tensors, max_shard_bytes)
    for name in _COPIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    _write_config(base, out, str(dtype).removeprefix("torch."))
    return files, digests


def _write_shards(
    out: Path, plan: list[Planned], tensors: Iterator[Tensor], limit: int
) -> tuple[dict[str, str], dict[str, str]]:
    shards = list(_split(plan, limit))
    files: dict[str, str] = {}
    digests: dict[str, str] = {}
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        files[name], found = write_safetensors(out / name, shard, islice(tensors, len(shard)))
        digests.update(found)
        places.update(dict.fromkeys((item.name for item in shard), name))
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(item.length for item in plan)}, "weight_map": places}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (out / INDEX).write_text(text, encoding="utf-8")
        files[INDEX] = sha256_bytes(text.encode())
    return files, digests


def _split(plan: Iterable[Planned], limit: int) -> Iterator[list[Planned]]:
    """Yield the tensors file by file, in order, each file at most `limit` bytes where one tensor allows it."""
    shard: list[Planned] = []
    used = 0
    for item in plan:
        if shard and used + item.length > limit:
            yield shard
            shard, used = [], 0
        shard.append(item)
        used += item.length
    if shard:
        yield shard


def _write_config(base: Path, out: Path, dtype: str) -> None:
    """Copy config.json with the type of the weights as they are now, under the key that the base uses."""
    config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    key = "dtype" if "dtype" in config else "torch_dtype"
    config.pop("torch_dtype", None)
    config[key] = dtype
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
