"""Reading task files, with messages that name file, row and key."""

import json
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError


def read_text(path: Path) -> str:
    """Return a task file's text; StageError if it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(
            f"{path.name}: cannot be read: {error}; check `file` of the task and its suite's fetch"
        ) from None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise StageError(f"{path.name}: not valid JSON: {error}") from None


def read_jsonl(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return (where, row) of every line; `where` is `file:line` for messages. Blank lines are refused, not skipped."""
    rows = []
    # Not splitlines: it also cuts at U+2028 and others, which JSON allows inside strings.
    for number, line in enumerate(read_text(path).removesuffix("\n").split("\n"), start=1):
        where = f"{path.name}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise StageError(f"{where}: not a JSON object: {error}") from None
        if not isinstance(row, dict):
            raise StageError(f"{where}: found a {type(row).__name__}; every line must be a JSON object")
        rows.append((where, row))
    return rows


def text_of(where: str, row: dict[str, Any], key: str) -> str:
    """Return the string at `key`."""
    value = row.get(key)
    if not isinstance(value, str):
        raise StageError(f"{where}: {key}: found {value!r:.80}; must be a string")
    return value


def texts_of(where: str, row: dict[str, Any], key: str) -> list[str]:
    """Return the list of strings at `key`."""
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise StageError(f"{where}: {key}: found {value!r:.80}; must be a list of strings")
    return value


def scores_of(where: str, row: dict[str, Any], key: str) -> dict[str, float]:
    """Return the table {choice: score} at `key`, in the file's order."""
    value = row.get(key)
    if not isinstance(value, dict) or not all(type(score) in (int, float) for score in value.values()):
        raise StageError(f"{where}: {key}: found {value!r:.80}; must be a table of choice: number")
    return value
