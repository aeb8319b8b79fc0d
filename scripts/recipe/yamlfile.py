"""YAML with line numbers: every value knows where it was written."""

import re
from pathlib import Path
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]
Place = tuple[Path, int]
"""File and line (1-based) where a key was written."""

# libyaml's loader is six times faster and just as safe, but not in every build of pyyaml.
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BASE):  # type: ignore[misc]
    """Reads 2e-5 as a number, as YAML 1.2, JSON and everybody do; pyyaml's YAML 1.1 wants 2.0e-5."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
# Far more than any recipe holds; aliases of aliases could make a small file endless.
_MAX_NODES = 100_000


class YamlError(ValueError):
    """A file that is not plain, unambiguous YAML; the message names file and line."""


def load_yaml(path: Path) -> tuple[Any, dict[KeyPath, Place]]:
    """Return the data of a YAML file and the place of every key path.

    Raises:
        YamlError: unreadable file, syntax error, duplicate key, or a tag other than the plain ones.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise YamlError(f"{path}: cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise YamlError(f"{path}:{line}: byte 0x{error.object[error.start]:02x} is no UTF-8; save as UTF-8") from None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        places: dict[KeyPath, Place] = {}
        _walk(root, (), places, path)
        return loader.construct_document(root) if root is not None else None, places
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise YamlError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except YamlError:
        raise
    except ValueError as error:  # a date or number that looks like one, but isn't
        raise YamlError(f"{path}: not valid YAML: {error}; put quotes around texts that look like dates") from None
    except RecursionError:
        raise YamlError(f"{path}: tables and lists are nested too deeply, or an alias holds itself") from None


def _walk(node: Any, key_path: KeyPath, places: dict[KeyPath, Place], path: Path) -> None:
    """Record the place of every key below `node`; refuse duplicate keys, which YAML would drop silently."""
    if len(places) > _MAX_NODES:
        raise YamlError(f"{path}: holds more than {_MAX_NODES:,} keys and values; write fewer aliases")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child, line = (*key_path, str(key.value)), key.start_mark.line + 1
            if child in places:
                raise YamlError(
                    f"{path}:{line}: {dotted(child)}: given twice (first in line {places[child][1]}); keep one"
                )
            places[child] = path, line
            _walk(value, child, places, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            places[(*key_path, index)] = path, value.start_mark.line + 1
            _walk(value, (*key_path, index), places, path)


def dotted(key_path: KeyPath) -> str:
    """Return `models.base.train` for ("models", "base", "train"), and `a[0]` for list items."""
    text = ""
    for part in key_path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text or "(top level)"
