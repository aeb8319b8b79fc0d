"""Settings by which a model folder makes libraries run code that is not theirs (rule R3: refused before they look).

`auto_map`, `custom_pipelines`, `custom_generate`: Python files of the folder or the hub. `model_file`: a pickle.
`attn_implementation` and `experts_implementation`, with or without underscores and suffixes: transformers 5 takes
them from config.json, and a value `owner/name` loads compiled kernels from the hub (CVE-2026-4372 among them).
"""

from typing import Any

_CODE_KEYS = frozenset({"auto_map", "custom_pipelines", "custom_generate", "trust_remote_code", "model_file"})
_KERNEL_KEYS = ("attn_implementation", "experts_implementation")


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
