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
        # Those beside config.json, which are loaded; a training's artifact may hold checkpoints too.
        "weights": _digest(model, lambda name: name.endswith(".safetensors") and "/" not in name),
        "tokenizer": _digest(model, lambda name: name in _TOKENIZER),
        "data": {name: _digest(folder, lambda _: True) for name, folder in data.items()},
    }


def _digest(folder: Path, wanted: Callable[[str], bool]) -> str:
    names = [name for name in payload_files(folder) if wanted(name)]
    return sha256_bytes(format_sums(_known(folder, names)).encode())


def _known(folder: Path, names: list[str]) -> dict[str, str]:
    """Return the digest of each file: from its artifact, which a training's checkpoint lies two folders below."""
    for root in (folder, folder.parents[1]):
        known = read_sums(root) if (root / SUMS).is_file() else {}
        files = {name: (folder / name).relative_to(root).as_posix() for name in names}
        if all(file in known for file in files.values()):
            return {name: known[file] for name, file in files.items()}
    return hash_files(folder, names)
