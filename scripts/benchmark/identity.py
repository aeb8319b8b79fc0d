"""What a result is about, as digests: the model's weights, its tokenizer, the data."""

from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.artifact.digest import SUMS, format_sums, hash_files, payload_files, read_sums, sha256_bytes

_TOKENIZER = frozenset(
    {
        "tokenizer.model",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
    }
)


def digests(model: Path, data: Mapping[str, Path]) -> dict[str, object]:
    """Return SHA-256 over the lines of SHA256SUMS that belong to weights, tokenizer and each data folder.

    Args:
        model: the model's folder; its files were verified at the stage's door.
        data: folder of each download that the suite reads.
    """
    return {
        "weights": _digest(model, lambda name: name.endswith(".safetensors")),
        "tokenizer": _digest(model, lambda name: name in _TOKENIZER),
        "data": {name: _digest(folder, lambda _: True) for name, folder in data.items()},
    }


def _digest(folder: Path, wanted: Callable[[str], bool]) -> str:
    names = [name for name in payload_files(folder) if wanted(name)]
    known = read_sums(folder) if (folder / SUMS).is_file() else hash_files(folder, names)
    return sha256_bytes(format_sums({name: known[name] for name in names}).encode())
