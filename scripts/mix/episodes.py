"""Read the episodes of clean artifacts, a batch at a time."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scripts.artifact.stage import StageError
from scripts.artifact.workers import ahead

# 1,024 episodes of a mean 4 kB are 4 MB: small beside the interpreter, and long enough for the columnar reader.
_BATCH_ROWS = 1024


class Episode(NamedTuple):
    """One conversation as the clean stage wrote it."""

    id: str
    system: str | None
    turns: list[tuple[str, str | None]]
    """(`user` or `model`, text)."""


def episode_ids(source: str, folder: Path) -> tuple[list[str], int]:
    """Return (ids of the episodes with a model turn, number of all episodes) of one clean artifact.

    Raises:
        StageError: not a clean artifact's file, an id without text, or an id that comes twice.
    """
    ids: list[str] = []
    episodes = 0
    for batch in _batches(source, folder, ["id", "turns"]):
        episodes += batch.num_rows
        turns = batch.column("turns")
        answered = pc.equal(pc.struct_field(pc.list_flatten(turns), "role"), "model")
        rows = set(pc.list_parent_indices(turns).filter(answered).to_pylist())
        batch_ids = batch.column("id").to_pylist()
        ids += [_usable(source, batch_ids[row]) for row in sorted(rows)]
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise StageError(f"clean/{source}: id {twice!r} comes twice in episodes.parquet; ids must differ; rebuild it")
    return ids, episodes


def episodes(source: str, folder: Path, threads: int = 1) -> Iterator[Episode]:
    """Yield each episode in the order of the file."""
    for batch in ahead(_batches(source, folder, ["id", "system", "turns"]), threads):
        # Flat columns: pyarrow takes longer to make a dict for each turn than all else here does.
        turns = pc.list_flatten(batch.column("turns"))
        roles, texts = (pc.struct_field(turns, name).to_pylist() for name in ("role", "text"))
        lengths = pc.list_value_length(batch.column("turns")).fill_null(0).to_pylist()
        start = 0
        for identifier, system, length in zip(
            batch.column("id").to_pylist(), batch.column("system").to_pylist(), lengths, strict=True
        ):
            stop = start + length
            yield Episode(identifier, system, list(zip(roles[start:stop], texts[start:stop], strict=True)))
            start = stop


def chars_by_id(source: str, folder: Path) -> dict[str, int]:
    """Return the characters of each episode: its system text and turns, without markers."""
    found: dict[str, int] = {}
    for batch in _batches(source, folder, ["id", "system", "turns"]):
        turns = batch.column("turns")
        texts = pc.struct_field(pc.list_flatten(turns), "text")
        of_turns = pc.utf8_length(texts).fill_null(0).to_numpy(zero_copy_only=False)
        sums = np.bincount(pc.list_parent_indices(turns).to_numpy(), of_turns, batch.num_rows).astype(np.int64)
        sums += pc.utf8_length(batch.column("system")).fill_null(0).to_numpy(zero_copy_only=False)
        found.update(zip(batch.column("id").to_pylist(), sums.tolist(), strict=True))
    return found


def _batches(source: str, folder: Path, columns: list[str]) -> Generator[pa.RecordBatch]:
    path = folder / "episodes.parquet"
    try:
        # pre_buffer keeps all that was read until the end: the memory of the whole file.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            _check_schema(source, file.schema_arrow)
            yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=columns)
    except FileNotFoundError:
        raise StageError(f"clean/{source}: holds no episodes.parquet; rebuild it") from None
    except pa.ArrowInvalid as error:
        raise StageError(f"clean/{source}: episodes.parquet can't be read ({error}); rebuild it") from None


def _check_schema(source: str, schema: pa.Schema) -> None:
    turn = pa.struct([("role", pa.string()), ("text", pa.string())])
    for name, wanted in {"id": pa.string(), "system": pa.string(), "turns": pa.list_(turn)}.items():
        found = schema.field(name).type if name in schema.names else None
        if found is None or not found.equals(wanted):
            text = "is missing" if found is None else f"has type {found}"
            raise StageError(f"clean/{source}: column {name} {text}, needs {wanted}; rebuild it (see docs/formats.md)")


def _usable(source: str, identifier: str | None) -> str:
    if not identifier:
        raise StageError(f"clean/{source}: an episode without id in episodes.parquet; every row needs one; rebuild it")
    return identifier
