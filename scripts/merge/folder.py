"""Everything of the model folder but the weights: config, generation config, tokenizer and chat template."""

import json
import shutil
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError
from scripts.merge.models import ModelFolder, read_json

COPIED = (
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
# Files that list added tokens, and the key of the list.
_ADDED = {"added_tokens.json": "", "tokenizer.json": "added_tokens", "tokenizer_config.json": "added_tokens_decoder"}
_USUAL = ("generation_config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json")


def write_folder(first: ModelFolder, out: Path, dtype: str, added_tokens: str) -> dict[str, list[str]]:
    """Write the first model's files into `out`.

    Args:
        first: donor of config and tokenizer, whatever the second has.
        out: payload folder.
        dtype: true type of the weights, as a config names it.
        added_tokens: `error` or `drop`, for added tokens beyond the vocabulary.

    Returns:
        Facts worth a count: usual files that the first model lacks, and dropped tokens.

    Raises:
        StageError: an added token has no row in embed_tokens.
    """
    config = {k: v for k, v in first.config.items() if k != "_name_or_path"}  # a path of somebody's machine
    # transformers 5 reads and writes `dtype`, older ones and most other loaders `torch_dtype`.
    write_json(out / "config.json", {**config, "dtype": dtype, "torch_dtype": dtype})
    for name in COPIED:
        if (first.folder / name).is_file():
            shutil.copyfile(first.folder / name, out / name)
    dropped = _check_added(first, out, added_tokens)
    facts = {"missing_files": [n for n in _USUAL if not (out / n).is_file()], "dropped_tokens": dropped}
    return {key: names for key, names in facts.items() if names}


def write_json(path: Path, data: Any) -> None:
    """Write JSON as transformers does: two spaces, sorted keys, LF at the end."""
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _check_added(first: ModelFolder, out: Path, policy: str) -> list[str]:
    """Find added tokens with an id beyond the vocabulary: loaders of GGUF and CTranslate2 stop at them."""
    limit = int(first.config["vocab_size"])
    dropped: set[str] = set()
    for name, key in _ADDED.items():
        path = out / name
        if not path.is_file():
            continue
        data = read_json(path)
        table = data.get(key) if key else data
        beyond = [(text, i) for text, i in _ids(table) if i >= limit]
        if beyond and policy == "error":
            text, i = beyond[0]
            raise StageError(
                f"{first.folder / name}: added token {text!r} has id {i}, but model {first.name!r} has only {limit:,} "
                "rows; set added_tokens: drop to leave such tokens out"
            )
        if beyond:
            dropped |= {text for text, _ in beyond}
            kept = _without(table, limit)
            write_json(path, {**data, key: kept} if key else kept)
    return sorted(dropped)


def _ids(table: Any) -> list[tuple[str, int]]:
    """Return (text, id) of {text: id}, {id: {content}} or [{id, content}]."""
    if isinstance(table, list):
        return [(str(item["content"]), int(item["id"])) for item in table]
    found = []
    for key, value in (table or {}).items():
        found.append((str(value["content"]), int(key)) if isinstance(value, dict) else (str(key), int(value)))
    return found


def _without(table: Any, limit: int) -> Any:
    if isinstance(table, list):
        return [item for item in table if int(item["id"]) < limit]
    return {k: v for k, v in table.items() if int(k if isinstance(v, dict) else v) < limit}
