"""Rows of published benchmark files, whatever their container: JSON lines, Parquet or CSV."""

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.artifact.stage import StageError
from scripts.benchmark.formats.reading import read_jsonl, read_text

Row = tuple[str, dict[str, Any]]
"""(where, row); `where` is `file:number` for messages."""


def read_rows(path: Path, columns: tuple[str, ...] = ()) -> list[Row]:
    """Return the rows of a `.jsonl`, `.parquet` or `.csv` file in the file's order.

    Args:
        path: the file.
        columns: names of a CSV file's columns, used where the file has no header with the first of them.

    Raises:
        StageError: unreadable, of another kind, or a CSV row of another length.
    """
    if path.suffix == ".parquet":
        try:
            rows = pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            raise StageError(f"{path.name}: cannot be read: {error}; check `file` and the data's fetch") from None
        return [(f"{path.name}:{number}", row) for number, row in enumerate(rows, start=1)]
    if path.suffix == ".csv":
        return _csv(path, columns)
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    raise StageError(f"{path.name}: unknown kind of file; allowed are .jsonl, .parquet, .csv")


def _csv(path: Path, columns: tuple[str, ...]) -> list[Row]:
    lines = list(csv.reader(io.StringIO(read_text(path))))
    header = lines[0] if lines and lines[0][:1] == list(columns[:1]) else []
    names = header or list(columns)
    rows = []
    for number, line in enumerate(lines[bool(header) :], start=1 + bool(header)):
        if len(line) != len(names):
            raise StageError(
                f"{path.name}:{number}: has {len(line)} columns, expected {len(names)}: {', '.join(names)}"
            )
        rows.append((f"{path.name}:{number}", dict(zip(names, line, strict=True))))
    return rows
