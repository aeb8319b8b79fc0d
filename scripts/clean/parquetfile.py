"""Parquet files row by row: nested values as JSON knows them, and one bad row never stops its batch."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError
from scripts.clean.episode import ENCODING, RowError
from scripts.clean.rows import Row

# 1,024 rows of about 2 kB: 2 MB of Python texts at a time, and few enough calls to not matter.
_BATCH_ROWS = 1024


def parquet_rows(path: Path, choose: Callable[[Any], list[str]]) -> Iterator[Row]:
    """Yield the rows of a parquet file as {column: value}, counted from 1.

    Args:
        path: the file.
        choose: gets the Arrow schema and returns the columns to read; raises StageError where it lacks some.

    Raises:
        StageError: not parquet, or damaged: a truncated file has no index, so no row of it can be found.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        # pre_buffer keeps all that was read until the end: the memory of the whole file.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            columns = choose(file.schema_arrow)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                for value in _values(batch):
                    number += 1
                    problem = value if isinstance(value, RowError) else None
                    yield Row(path.name, number, "", problem, None if problem else value)
    except (pa.ArrowException, OSError) as error:
        raise StageError(f"{path}: not a readable parquet file: {_first_line(error)}; fetch it again") from None


def is_text(kind: Any) -> bool:
    """Whether an Arrow type holds text, plain or dictionary-encoded."""
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _values(batch: Any) -> Iterator[Any]:
    """Yield the rows of a batch; those that are not UTF-8 as the error that refuses them."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield RowError("not valid UTF-8", ENCODING)


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0][:200]
