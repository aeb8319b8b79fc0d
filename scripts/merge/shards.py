"""Output files: which tensor goes where, safetensors headers, and the index."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.artifact.tensors import TensorEntry

INDEX = "model.safetensors.index.json"
# Two metadata keys or more made safetensors 0.8.0 write another order in each process; exactly one is stable.
_METADATA = {"format": "pt"}


@dataclass(frozen=True)
class Shard:
    """One weight file: its header's bytes and the tensors after it, in order."""

    file: str
    header: bytes
    entries: tuple[TensorEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.entries[-1].stop if self.entries else len(self.header)


def split(tensors: Sequence[tuple[str, str, tuple[int, ...], int]], max_bytes: int) -> list[Shard]:
    """Fill files in the given order; a tensor larger than `max_bytes` gets a file of its own.

    Args:
        tensors: (name, dtype code, shape, bytes) in model definition order.
        max_bytes: most bytes of tensors in one file.
    """
    groups: list[list[tuple[str, str, tuple[int, ...], int]]] = [[]]
    filled = 0
    for tensor in tensors:
        if groups[-1] and filled + tensor[3] > max_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += tensor[3]
    names = ["model.safetensors"]
    if len(groups) > 1:
        names = [f"model-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1)]
    return [_shard(name, group) for name, group in zip(names, groups, strict=True)]


def _shard(file: str, tensors: Sequence[tuple[str, str, tuple[int, ...], int]]) -> Shard:
    described: dict[str, object] = {"__metadata__": _METADATA}
    at, spans = 0, []
    for name, dtype, shape, size in tensors:
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        spans.append((at, at + size))
        at += size
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes, as the format asks
    header = struct.pack("<Q", len(text)) + text
    begin = len(header)
    entries = [
        TensorEntry(name, dtype, shape, begin + low, begin + high)
        for (name, dtype, shape, _), (low, high) in zip(tensors, spans, strict=True)
    ]
    return Shard(file, header, tuple(entries))


def index_text(shards: Sequence[Shard]) -> str:
    """Return the text of the index: total bytes of all tensors and the file of each."""
    total = sum(entry.stop - entry.start for shard in shards for entry in shard.entries)
    weight_map = {entry.name: shard.file for shard in shards for entry in shard.entries}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return json.dumps(index, indent=2, sort_keys=True) + "\n"
