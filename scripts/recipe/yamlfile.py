"""YAML with line numbers: every value knows where it was written."""

from pathlib import Path
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]


class YamlError(ValueError):
    """A file that is not plain, unambiguous YAML; the message names file and line."""


def load_yaml(path: Path) -> tuple[Any, dict[KeyPath, int]]:
    """Return the data of a YAML file and the line (1-based) of every key path.

    Raises:
        YamlError: unreadable file, syntax error, duplicate key, or a tag other than the plain ones.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise YamlError(f"{path}: cannot be read: {error}") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[KeyPath, int] = {}
        _walk(root, (), lines, path)
        return yaml.safe_load(text), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise YamlError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None


def _walk(node: Any, key_path: KeyPath, lines: dict[KeyPath, int], path: Path) -> None:
    """Record the line of every key below `node`; refuse duplicate keys, which YAML would drop silently."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child = (*key_path, str(key.value))
            if child in lines:
                raise YamlError(
                    f"{path}:{key.start_mark.line + 1}: {dotted(child)}: given twice "
                    f"(first in line {lines[child]}); keep one"
                )
            lines[child] = key.start_mark.line + 1
            _walk(value, child, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*key_path, index)] = value.start_mark.line + 1
            _walk(value, (*key_path, index), lines, path)


def dotted(key_path: KeyPath) -> str:
    """Return `models.base.train` for ("models", "base", "train"), and `a[0]` for list items."""
    text = ""
    for part in key_path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text or "(top level)"
