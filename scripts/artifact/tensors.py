"""Safetensors headers, checked by our own code, and a digest per tensor that no sharding can change."""

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from scripts.artifact.digest import ArtifactError

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
MAX_HEADER_BYTES = 100_000_000
_BLOCK = 1 << 20
_BASENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies in its file."""

    name: str
    dtype: str
    """Name as in the header: F32, F16, BF16, ..."""
    shape: tuple[int, ...]
    start: int
    """Absolute offset of the first byte."""
    stop: int


def read_header(path: Path) -> list[TensorEntry]:
    """Return the tensors of a safetensors file in order of their bytes.

    Raises:
        ArtifactError: truncated or oversized header, unknown dtype, or offsets that are not contiguous,
            overlap, or don't match dtype and shape (rule R5).
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        return parse_header(handle, size, str(path))


def parse_header(handle: BinaryIO, size: int, label: str) -> list[TensorEntry]:
    """As `read_header`, from an open file of `size` bytes."""

    def bad(text: str) -> ArtifactError:
        return ArtifactError(f"{label}: not a valid safetensors file: {text}")

    prefix = handle.read(8)
    if len(prefix) < 8:
        raise bad(f"{len(prefix)} bytes, too short for a header")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise bad(f"header of {length:,} bytes in a file of {size:,}")
    try:
        header = json.loads(handle.read(length).decode("utf-8"))
        header.pop("__metadata__", None)
        entries = [
            TensorEntry(name, item["dtype"], tuple(item["shape"]), *(8 + length + o for o in item["data_offsets"]))
            for name, item in header.items()
        ]
        if any(type(o) is not int for e in entries for o in (*e.shape, e.start, e.stop)):
            raise TypeError("a shape or an offset is not a whole number")
        entries.sort(key=lambda e: (e.start, e.stop))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise bad(f"unreadable header ({error})") from None
    expected = 8 + length
    for entry in entries:
        if not isinstance(entry.dtype, str) or entry.dtype not in ITEM_BYTES or any(d < 0 for d in entry.shape):
            raise bad(f"tensor {entry.name!r} has dtype {entry.dtype!r}, shape {list(entry.shape)}")
        if entry.start != expected or entry.stop - entry.start != prod(entry.shape) * ITEM_BYTES[entry.dtype]:
            raise bad(f"tensor {entry.name!r}: offsets don't continue the one before or don't match its shape")
        expected = entry.stop
    if expected != size:
        raise bad(f"tensors end at byte {expected:,}, the file at {size:,}")
    return entries


def model_files(folder: Path) -> list[Path]:
    """Return the weight files of a model directory, by its index where there is one.

    Raises:
        ArtifactError: no weights, an index that names a path instead of a file name, or a missing shard.
    """
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        single = folder / "model.safetensors"
        if not single.is_file():
            raise ArtifactError(f"{folder}: holds no model.safetensors and no index")
        return [single]
    names = weight_map_files(index.read_text(encoding="utf-8", errors="replace"), index)
    for name in names:
        if not (folder / name).is_file():
            raise ArtifactError(f"{index}: names {name}, which is missing")
    return [folder / name for name in names]


def weight_map_files(text: str, index: Path) -> list[str]:
    """Return the weight files that the text of an index names, sorted.

    Raises:
        ArtifactError: unreadable, or a path where only the name of a file beside the index is allowed.
    """
    try:
        names = sorted(set(json.loads(text)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{index}: unreadable index ({error})") from None
    for name in names:
        if not isinstance(name, str) or not _BASENAME.fullmatch(name):
            raise ArtifactError(f"{index}: weight_map names {name!r}; only plain *.safetensors file names are allowed")
    return names


def tensor_digest(entry: TensorEntry) -> "hashlib._Hash":
    """Return a hash begun with dtype and shape; feed it the tensor's bytes."""
    return hashlib.sha256(f"{entry.dtype}:{','.join(map(str, entry.shape))}:".encode())


def digest_safetensors(path: Path) -> tuple[str, dict[str, str]]:
    """Return (SHA-256 of the file, {tensor: SHA-256 of dtype, shape and bytes}) in one read of the file."""
    whole, tensors = hashlib.sha256(), {}
    entries = read_header(path)
    with path.open("rb", buffering=0) as handle:
        whole.update(handle.read(entries[0].start if entries else path.stat().st_size))
        for entry in entries:
            digest, left = tensor_digest(entry), entry.stop - entry.start
            while left:
                block = handle.read(min(_BLOCK, left))
                if not block:
                    raise ArtifactError(f"{path}: ends inside tensor {entry.name!r}")
                whole.update(block)
                digest.update(block)
                left -= len(block)
            tensors[entry.name] = digest.hexdigest()
    return whole.hexdigest(), tensors
