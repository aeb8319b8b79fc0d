"""CSV files of people: huge fields, wrong column counts, bytes that are no UTF-8."""

import csv
from collections.abc import Iterator
from pathlib import Path

from scripts.artifact.stage import StageError
from scripts.clean.episode import ENCODING, RowError
from scripts.clean.rows import MAX_ROW_BYTES, Row
from scripts.clean.text import repair_text, undecoded

_OTHER_SEPARATORS = {";": ";", "\t": "tabs", "|": "|"}
"""What spreadsheets write in place of commas, and how a message calls it."""


def csv_rows(path: Path, needed: tuple[str, ...]) -> Iterator[Row]:
    """Yield the rows of a CSV file as {column: text}, counted from 1 behind the header.

    Args:
        path: UTF-8 with a header line.
        needed: columns that must be there.

    Raises:
        StageError: no header with these columns.
    """
    # The csv module's default of 131,072 characters is less than one long post.
    csv.field_size_limit(MAX_ROW_BYTES)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
        reader = csv.reader(handle, strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise StageError(f"{path}: not a CSV file: {error}") from None
        missing = [name for name in needed if name not in header]
        if missing:
            found = repair_text(", ".join(header))[:200] or "an empty line"
            for mark, called in _OTHER_SEPARATORS.items():
                if len(header) == 1 and set(needed) <= {name.strip(' "') for name in header[0].split(mark)}:
                    raise StageError(f"{path}: separated by {called}, needs commas; save it as CSV with commas")
            raise StageError(f"{path}: no column {missing[0]!r}; found {found}; needs {', '.join(needed)}")
        number = 0
        while True:
            number += 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(path.name, number, "", RowError(f"not valid CSV: {error} (line {reader.line_num})"), None)
                continue
            if cells:
                yield _row(path.name, number, header, cells)


def _row(file: str, number: int, header: list[str], cells: list[str]) -> Row:
    shown = "\n".join(cells)
    if len(cells) != len(header):
        return Row(file, number, shown, RowError(f"{len(cells)} columns, the header has {len(header)}"), None)
    if undecoded(shown):
        return Row(file, number, shown, RowError("not valid UTF-8", ENCODING), None)
    return Row(file, number, shown, None, dict(zip(header, cells, strict=True)))
