"""Settings by which a model folder makes libraries run code that is not theirs (rule R3: refused before they look).

`auto_map`, `custom_pipelines`, `custom_generate`: Python files of the folder or the hub. `model_file`: a pickle.
`attn_implementation` and `experts_implementation`, with or without underscores and suffixes: transformers 5 takes
them from config.json, and a value `owner/name` loads compiled kernels from the hub (CVE-2026-4372 among them).
`use_kernels`, `kernel_config`: the same for single layers. `auto_mapping`: an adapter names a module to import.
"""

import json
from pathlib import Path
from typing import Any

_CODE_KEYS = frozenset(
    {
        "auto_map",
        "auto_mapping",
        "custom_generate",
        "custom_pipelines",
        "kernel_config",
        "model_file",
        "trust_remote_code",
        "use_kernels",
    }
)
_KERNEL_KEYS = ("attn_implementation", "experts_implementation")
# A vocabulary: may hold any word as a key, and is never asked for code.
_NOT_SETTINGS = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
_CODE_SUFFIXES = frozenset({".py", ".pyc", ".so"})


def asks_for_code(value: Any) -> str:
    """Return the first key anywhere inside parsed JSON that asks for foreign code, or an empty string.

    An empty or false value (`trust_remote_code: false`) is harmless.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if inner and (key in _CODE_KEYS or str(key).lstrip("_").startswith(_KERNEL_KEYS)):
                return str(key)
        return next(filter(None, map(asks_for_code, value.values())), "")
    if isinstance(value, list):
        return next(filter(None, map(asks_for_code, value)), "")
    return ""


def foreign_code(folder: Path) -> str:
    """Return why a model folder is refused, as `file: reason`, or an empty string.

    Every stage that takes a model asks before a library sees the folder: code files, and settings that ask for code.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix in _CODE_SUFFIXES:
            return f"{path}: code in a model folder is refused; remove it, only safetensors weights are read"
    for path in sorted(folder.glob("*.json")):
        if path.name in _NOT_SETTINGS or path.name.endswith(".index.json"):
            continue
        try:
            asked = asks_for_code(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            return f"{path}: not readable JSON ({error}); rebuild or download the model again"
        if asked:
            return (
                f"{path}: {asked}: asks for remote code, which is refused; "
                "use a model whose architecture is part of transformers, and remove this key"
            )
    return ""
