"""R5, R10: whatever is cut off or changed in a file of a known form gives a named error, never another one."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from scripts.artifact.digest import SUMS, ArtifactError, format_sums, parse_sums, read_sums
from scripts.artifact.lock import parse_lock, read_lock
from scripts.artifact.record import read_record, write_record
from scripts.artifact.tensors import ITEM_BYTES, model_files, read_header
from scripts.recipe.base import keyed_hash

SHA = "0123456789abcdef" * 4
TRIES = 1500
# Bytes that mean something to one of the readers.
SYNTAX = b'{}[]",:0-9eE+.nullNaN\\u\x00\xff\n\r \t/~$#"../'


def drawn(limit: int, *parts: object) -> int:
    """Return a number below `limit` that depends on the parts alone."""
    return keyed_hash(20230902, "fuzz", *parts) % limit


def mutated(content: bytes, number: int) -> bytes:
    """Return content with one cut, flip, doubling, removal or piece of syntax, at a drawn place."""
    at, kind = drawn(len(content), number, "at"), drawn(5, number, "kind")
    size = 1 + drawn(16, number, "size")
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + bytes([content[at] ^ (1 << drawn(8, number, "bit"))]) + content[at + 1 :]
    if kind == 2:
        return content[: at + size] + content[at:]
    if kind == 3:
        return content[:at] + content[at + size :]
    return content[:at] + SYNTAX[drawn(len(SYNTAX), number, "word") :][:size] + content[at + size :]


def weights() -> bytes:
    """Return a small safetensors file."""
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones((3,), np.float16)}
    return save(tensors, {"format": "pt"})


def index() -> bytes:
    """Return an index of two shards."""
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    return json.dumps({"metadata": {"total_size": 30}, "weight_map": shards}).encode()


def record(folder: Path) -> bytes:
    """Return a record."""
    write_record(folder / "made.json", {"key": SHA, "value": SHA, "inputs": [["a/b", SHA]], "rate": 1.5, "none": None})
    return (folder / "made.json").read_bytes()


LOCK = f"# atelier lock 1: stage, name, key, value, bytes\nclean\ta\t{SHA}\t{SHA}\t12\nreport\t-\t{SHA}\t{SHA}\t7\n"
SUMS_TEXT = format_sums({"a.txt": SHA, "sub/b.bin": SHA[::-1]})


def fuzz(path: Path, content: bytes, read: Callable[[Path], object]) -> int:
    """Read many damaged contents; return how many were refused. Any other error than ArtifactError fails the test."""
    refused = 0
    cuts = [content[:at] for at in range(min(len(content), 400))]
    for number, damaged in enumerate([*cuts, *(mutated(content, n) for n in range(TRIES))]):
        path.write_bytes(damaged)
        try:
            read(path)
        except ArtifactError as error:
            assert str(path.parent) in str(error) and len(str(error)) < 2000, f"{number}: {error}"
            refused += 1
        except Exception as error:
            raise AssertionError(f"try {number}: {type(error).__name__}: {error}; content {damaged[:300]!r}") from error
    return refused


def test_weights(tmp_path: Path) -> None:
    """A header that passes describes the file completely: nothing overlaps, nothing is left over."""

    def read(path: Path) -> None:
        entries = read_header(path)
        (length,) = struct.unpack("<Q", path.read_bytes()[:8])
        assert sum(e.stop - e.start for e in entries) == path.stat().st_size - 8 - length
        assert all(e.stop - e.start == ITEM_BYTES[e.dtype] * int(np.prod(e.shape)) for e in entries)

    assert fuzz(tmp_path / "model.safetensors", weights(), read) > TRIES // 2


def test_index_of_weights(tmp_path: Path) -> None:
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (tmp_path / name).write_bytes(weights())

    def read(path: Path) -> None:
        assert all(p.parent == path.parent and p.is_file() for p in model_files(path.parent))

    assert fuzz(tmp_path / "model.safetensors.index.json", index(), read) > TRIES // 2


def test_records(tmp_path: Path) -> None:
    """What is read is what was written, or it is refused: the record guards its own bytes."""
    content = record(tmp_path)
    wanted = read_record(tmp_path / "made.json")

    def read(path: Path) -> None:
        assert read_record(path) == wanted

    assert fuzz(tmp_path / "artifact.json", content, read) > TRIES // 2


@pytest.mark.parametrize(
    "text", ["[1]", '"x"', "null", "7", "[" * 100_000, '{"self": NaN}', '{"a": NaN, "self": 1}', "{}"]
)
def test_records_of_another_form(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ArtifactError, match="rebuild the artifact"):
        read_record(tmp_path / "r.json")


def test_sums(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        assert read_sums(path.parent) == parse_sums(path.read_bytes().decode(), path)
        assert all(".." not in name.split("/") and not name.startswith("/") for name in read_sums(path.parent))

    assert fuzz(tmp_path / SUMS, SUMS_TEXT.encode(), read) > TRIES // 4


def test_locks(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        for entry in read_lock(path):
            assert entry.bytes >= 0 and entry.stage in {"clean", "report"}

    assert fuzz(tmp_path / "x.lock", LOCK.encode(), read) > TRIES // 4


@pytest.mark.parametrize("field", [2, 3])
@pytest.mark.parametrize("digest", ["", "x", SHA[:-1], SHA.upper(), SHA + "0", "../" + SHA])
def test_a_lock_holds_digests(field: int, digest: str) -> None:
    fields = ["clean", "a", SHA, SHA, "12"]
    fields[field] = digest
    with pytest.raises(ArtifactError, match="x.lock:2"):
        parse_lock("# atelier lock 1: x\n" + "\t".join(fields) + "\n", "x.lock")
