"""Writing safetensors tensor by tensor, hashing while the bytes pass: nothing is held whole, nothing is read again."""

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from scripts.artifact.tensors import ITEM_BYTES, TensorEntry, tensor_digest

DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class Planned:
    """One tensor of a file to be written."""

    name: str
    dtype: str
    """Name in the header: F32, BF16, F16."""
    shape: tuple[int, ...]

    @property
    def length(self) -> int:
        """Bytes of the tensor."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


def planned(name: str, tensor: Tensor) -> Planned:
    """Return the plan of a tensor that is at hand."""
    return Planned(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape))


def write_safetensors(path: Path, plan: Sequence[Planned], tensors: Iterable[Tensor]) -> tuple[str, dict[str, str]]:
    """Write one file, flush it to the disk, and return (SHA-256 of the file, {tensor: digest}).

    Args:
        path: file to create.
        plan: its tensors, in order of their bytes.
        tensors: their values in the same order, on the CPU; taken one at a time.

    Raises:
        ValueError: a tensor differs from its plan.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for item in plan:
        offsets = [offset, offset + item.length]
        header[item.name] = {"dtype": item.dtype, "shape": list(item.shape), "data_offsets": offsets}
        offset += item.length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8, as the format advises
    whole, digests = hashlib.sha256(), {}
    with path.open("wb") as handle:
        for part in (struct.pack("<Q", len(text)), text):
            handle.write(part)
            whole.update(part)
        for item, tensor in zip(plan, tensors, strict=True):
            if planned(item.name, tensor) != item:
                raise ValueError(f"{item}: found {tensor.dtype}, {list(tensor.shape)}")
            content = tensor.contiguous().flatten().view(torch.uint8).numpy().data
            handle.write(content)
            whole.update(content)
            digest = tensor_digest(TensorEntry(item.name, item.dtype, item.shape, 0, item.length))
            digest.update(content)
            digests[item.name] = digest.hexdigest()
        handle.flush()
        os.fsync(handle.fileno())
    return whole.hexdigest(), digests
