"""OpenOrca: FLAN questions answered by GPT-4, one parquet row each (system_prompt, question, response)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError
from scripts.clean.episode import Outcomes, RawEpisode, Turn
from scripts.clean.parquetfile import is_text, parquet_rows
from scripts.clean.rows import Row, parse_rows, source_files, table, text
from scripts.clean.wording import Wording
from scripts.recipe.clean import OpenOrca

_NEEDED = ("system_prompt", "question", "response")


def read(spec: OpenOrca, folder: Path, wording: Wording) -> Outcomes:
    """Yield the rows of all `.parquet` files.

    Raises:
        StageError: not parquet, damaged, or without the needed text columns.
    """
    for path in source_files(folder, ".parquet"):
        yield from parse_rows(parquet_rows(path, partial(_columns, path)), _exchange)


def _columns(path: Path, schema: Any) -> list[str]:
    missing = [name for name in _NEEDED if name not in schema.names]
    if missing:
        raise StageError(f"{path}: no column {missing[0]!r}; found {', '.join(schema.names)}; is it OpenOrca?")
    columns = [name for name in ("id", *_NEEDED) if name in schema.names]
    for name in columns:
        if not is_text(schema.field(name).type):
            kind = schema.field(name).type
            raise StageError(f"{path}: column {name!r} has type {kind}; needs text; is it OpenOrca?")
    return columns


def _exchange(row: Row) -> Iterator[RawEpisode]:
    value = table(row.value)
    system, question = text(value, "system_prompt", optional=True), text(value, "question")
    turns = (Turn("user", question), Turn("model", text(value, "response")))
    key = text(value, "id", optional=True) or "\x1f".join((system, *(turn.text for turn in turns)))
    yield RawEpisode(row.line, row.file, key, system, turns)
