"""OpenOrca: FLAN questions answered by GPT-4, one parquet row each (system_prompt, question, response)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError
from scripts.clean.episode import ENCODING, Outcomes, RawEpisode, RowError, Turn
from scripts.clean.rows import Row, parse_rows, source_files, table, text
from scripts.recipe.clean import OpenOrca

_NEEDED = ("system_prompt", "question", "response")
# 1,024 rows of about 2 kB: 2 MB of Python texts at a time, and few enough calls to not matter.
_BATCH_ROWS = 1024


def read(spec: OpenOrca, folder: Path, seed: int) -> Outcomes:
    """Yield the rows of all `.parquet` files.

    Raises:
        StageError: not parquet, damaged, or without the needed text columns.
    """
    for path in source_files(folder, ".parquet"):
        yield from parse_rows(_rows(path), _exchange)


def _rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as table_file:
            names = table_file.schema_arrow.names
            missing = [name for name in _NEEDED if name not in names]
            if missing:
                raise StageError(f"{path}: no column {missing[0]!r}; found {', '.join(names)}; is it OpenOrca?")
            columns = [name for name in ("id", *_NEEDED) if name in names]
            for batch in table_file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                # Bytes, not text: one row that is not UTF-8 would stop a whole batch.
                raw = [_bytes(batch.column(name), name, path) for name in columns]
                for values in zip(*raw, strict=True):
                    number += 1
                    yield _row(path, number, dict(zip(columns, values, strict=True)))
    except (pa.ArrowException, OSError) as error:
        raise StageError(f"{path}: not a readable parquet file: {error}; fetch it again") from None


def _bytes(column: Any, name: str, path: Path) -> list[bytes | None]:
    import pyarrow as pa

    kind = column.type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)):
        raise StageError(f"{path}: column {name!r} has type {kind}; needs text; is it OpenOrca?")
    texts = column.cast(value) if value is not kind else column
    result: list[bytes | None] = texts.cast(pa.large_binary()).to_pylist()
    return result


def _row(path: Path, number: int, raw: dict[str, bytes | None]) -> Row:
    try:
        value = {name: None if item is None else item.decode() for name, item in raw.items()}
        return Row(path.name, number, "", None, value)
    except UnicodeDecodeError:
        shown = "\n".join(item.decode("utf-8", "replace") for item in raw.values() if item is not None)
        return Row(path.name, number, shown, RowError("not valid UTF-8", ENCODING), None)


def _exchange(row: Row) -> Iterator[RawEpisode]:
    value = table(row.value)
    system, question = text(value, "system_prompt", optional=True), text(value, "question")
    turns = (Turn("user", question), Turn("model", text(value, "response")))
    key = text(value, "id", optional=True) or "\x1f".join((system, *(turn.text for turn in turns)))
    yield RawEpisode(row.line, row.file, key, system, turns)
