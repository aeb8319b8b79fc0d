"""Benchmark files as decontamination sees them: items, each a handful of passages.

The files are read for what they hold, not for how a task renders them: every text inside an item is a passage of its
own, so that a row which quotes a question is found under whatever prompt it stands.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from scripts.artifact.stage import StageError

QUESTION_KEYS = frozenset(
    {"question", "query", "input", "prompt", "stem", "goal", "sentence", "ctx", "ctx_a", "context", "passage", "text"}
)
"""Names under which files keep what is asked. A short passage counts only there: short answers are anybody's words."""


class Passage(NamedTuple):
    """One text of an item."""

    text: str
    question: bool
    """Whether it is what is asked, not an answer or a remark."""


Item = list[Passage]


def read_items(path: Path) -> list[Item]:
    """Return the items of one benchmark file, in its order.

    Args:
        path: JSON lines; JSON that is a list, or a table with one list of tables in it (BIG-bench's `examples`);
            CSV, whose first column is the question; or parquet.

    Raises:
        StageError: another kind of file, or one that can't be read.
    """
    readers = {".jsonl": _lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        raise StageError(
            f"{path}: decontamination reads {', '.join(sorted(readers))}; convert the file, or set "
            "decontamination.policy: off in the recipe"
        )
    try:
        return [list(_passages(record)) for record in readers[path.suffix](path)]
    except (OSError, ValueError, csv.Error) as error:
        raise StageError(
            f"{path}: not a benchmark file ({error}); pin the published file in the suite's fetch"
        ) from None


def _lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None


def _json(path: Path) -> list[Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, list):
        return content
    lists = [v for v in content.values() if _is_table_list(v)] if isinstance(content, dict) else []
    if len(lists) != 1:
        raise ValueError(f"needs a list of items, or a table with one such list; found {len(lists)}")
    return list(lists[0])


def _is_table_list(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        for question, *rest in filter(None, csv.reader(file)):
            yield {"question": question, "rest": rest}


def _parquet(path: Path) -> list[Any]:
    import pyarrow.parquet as pq

    return list(pq.read_table(path).to_pylist())


def _passages(value: object, key: str = "") -> Iterable[Passage]:
    if isinstance(value, str):
        yield Passage(value, key in QUESTION_KEYS)
    elif isinstance(value, list):
        for item in value:
            yield from _passages(item, key)
    elif isinstance(value, dict):
        for name, item in value.items():
            # {choice: score}: there the key is a text.
            if not isinstance(item, str | list | dict):
                yield Passage(name, False)
            yield from _passages(item, name)
