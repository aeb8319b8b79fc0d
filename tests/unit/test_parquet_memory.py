"""Readers of parquet hold a row group or two, however large the file: pyarrow's default holds all that was read."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.clean.parquetfile import parquet_rows
from scripts.create.tokenizer import _lines
from scripts.mix.episodes import episodes
from scripts.pack.rows import mixture_batches

ROWS, GROUP = 400, 10


def mixture(path: Path) -> None:
    """Write 400 rows of 50 kB that don't compress, ten a row group."""
    segments = [[{"text": secrets.token_hex(25_000), "trained": True}] for _ in range(ROWS)]
    table = pa.table({"id": [str(i) for i in range(ROWS)], "source": ["s"] * ROWS, "segments": segments})
    pq.write_table(table, path, row_group_size=GROUP)


def cleaned(path: Path) -> None:
    """The same as episodes."""
    turns = [[{"role": "model", "text": secrets.token_hex(25_000)}] for _ in range(ROWS)]
    table = pa.table({"id": [str(i) for i in range(ROWS)], "system": ["s"] * ROWS, "turns": turns})
    pq.write_table(table, path, row_group_size=GROUP)


Reader = Callable[[Path], Iterator[object]]


@pytest.mark.parametrize(
    ("write", "name", "read"),
    [
        (mixture, "train.parquet", lambda path: mixture_batches(path)[1]),
        (mixture, "train.parquet", _lines),
        (mixture, "train.parquet", lambda path: parquet_rows(path, lambda schema: schema.names)),
        (cleaned, "episodes.parquet", lambda path: episodes("s", path.parent)),
    ],
    ids=["pack", "create", "clean", "mix"],
)
def test_a_reader_does_not_hold_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], name: str, read: Reader
) -> None:
    for module in (
        "scripts.pack.rows",
        "scripts.mix.episodes",
        "scripts.clean.parquetfile",
        "scripts.create.tokenizer",
    ):
        monkeypatch.setattr(f"{module}._BATCH_ROWS", GROUP)
    write(tmp_path / name)
    size, before = (tmp_path / name).stat().st_size, pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in read(tmp_path / name)]
    assert held and max(held) < size / 2
