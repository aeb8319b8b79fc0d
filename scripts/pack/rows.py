"""Rows of a mixture -> token ids and flags. T: tokens of all rows, one after another."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scripts.artifact.stage import StageError
from scripts.artifact.workers import ahead, ordered
from scripts.pack.encode import Encoded, Segments, encode_plan, encode_rows, plan
from scripts.pack.npy import NpyWriter
from scripts.recipe.pack import PackSettings, PackSpec
from scripts.recipe.tokenizer import Tokenizer

if TYPE_CHECKING:
    import pyarrow as pa

# 1,024 rows of a mean 4 kB: 4 MB travel to a process and 2 MB of ids back.
_BATCH_ROWS = 1024
_ROWS_WORTH_A_PROCESS = 2048


@dataclass
class Packed:
    """What was written of one split."""

    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Tokens of each row `[rows]`."""
    too_long: Counter[str] = field(default_factory=Counter)
    """Rows of each source that are longer than `sequence_len`."""
    trained_tokens: int = 0
    sources: dict[str, dict[str, int]] = field(default_factory=dict)


def pack_split(
    mixture: Path, split: str, out: Path, load: Callable[[], Tokenizer], spec: PackSpec, threads: int = 1
) -> Packed:
    """Write `<split>_input_ids.npy`, `_trained.npy`, `_rows.npy` and `_row_ids.parquet`, rows in the mixture's order.

    Rows longer than `sequence_len` are dropped whole and counted by source: a turn is never truncated. Memory holds
    one batch of rows for each process, and id and length of all rows; the bytes are the same for any number of threads.

    Args:
        load: returns the tokenizer; called in each process.
        threads: processes that tokenize, or threads of one.

    Raises:
        StageError: the parquet file is missing, lacks columns, or a row doesn't end in a model turn.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = mixture / f"{split}.parquet"
    packed = Packed()
    lengths: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    schema = pa.schema([("id", pa.string()), ("source", pa.string())])
    kept = [schema.empty_table()]
    with (
        NpyWriter(out / f"{split}_input_ids.npy", np.uint16) as all_ids,
        NpyWriter(out / f"{split}_trained.npy", np.uint8) as all_trained,
    ):
        for batch, done in _encoded(path, load, spec.settings, threads):
            all_ids.append(done.ids)
            all_trained.append(done.trained)
            fits = done.lengths <= spec.settings.sequence_len
            lengths.append(done.lengths[fits])
            kept.append(pa.table(batch.select(["id", "source"]).filter(pa.array(fits)).columns, schema=schema))
            packed.too_long.update(batch.column("source").filter(pa.array(~fits)).to_pylist())
            packed.trained_tokens += int(done.trained.sum())
            for source, length in zip(kept[-1].column("source").to_pylist(), lengths[-1].tolist(), strict=True):
                counts = packed.sources.setdefault(source, {"rows": 0, "tokens": 0})
                counts["rows"] += 1
                counts["tokens"] += length
    packed.lengths = np.concatenate(lengths)
    np.save(out / f"{split}_rows.npy", np.concatenate([[0], np.cumsum(packed.lengths)]).astype(np.int64))
    # One chunk: how rows came in batches must not show in the parquet pages.
    names = pa.concat_tables(kept).combine_chunks()
    pq.write_table(names, out / f"{split}_row_ids.parquet", compression="zstd")
    return packed


def _encoded(
    path: Path, load: Callable[[], Tokenizer], settings: PackSettings, threads: int
) -> "Iterator[tuple[pa.RecordBatch, Encoded]]":
    """Yield the batches of a mixture's file with their ids."""
    rows, batches = mixture_batches(path)
    tokenizer = load()
    # A process starts in about half a second, in which 1,000 rows are done. A second memo would meet all words for
    # itself: on 12 million tokens, two processes took as long as one.
    processes = 1 if tokenizer.memo else min(threads, rows // _ROWS_WORTH_A_PROCESS)
    if processes > 1:
        return ordered(partial(_encoder, load, settings, str(path)), batches, processes)
    return _alone(tokenizer, batches, settings, str(path), threads)


def _alone(
    tokenizer: Tokenizer, batches: "Iterator[pa.RecordBatch]", settings: PackSettings, path: str, threads: int
) -> "Iterator[tuple[pa.RecordBatch, Encoded]]":
    """Yield batches with their ids. The next batch is read and cut while compiled code looks up this one's words."""
    plans = ((b, plan(_segments(b, path), tokenizer.bos_id, tokenizer.eos_id, settings)) for b in batches)
    for batch, rows in ahead(plans, threads):
        yield batch, encode_plan(tokenizer, rows).up_to(settings.sequence_len)


def _encoder(load: Callable[[], Tokenizer], settings: PackSettings, path: str) -> Callable[[Any], Encoded]:
    """Return what a process does with a batch of rows."""
    tokenizer = load()

    def encode(batch: Any) -> Encoded:
        return encode_rows(tokenizer, _segments(batch, path), settings).up_to(settings.sequence_len)

    return encode


def mixture_batches(path: Path) -> tuple[int, "Iterator[pa.RecordBatch]"]:
    """Return the number of rows of a mixture's parquet file, and its batches in file order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # pre_buffer keeps all that was read until the end: the memory of the whole file.
        file = pq.ParquetFile(path, pre_buffer=False)
        found = file.schema_arrow
        for name, wanted in _columns().items():
            if name not in found.names or not found.field(name).type.equals(wanted):
                raise StageError(
                    f"{path}: not a mixture's file: column {name} must be {wanted}; build the mixture again"
                )
    except pa.ArrowException as error:
        raise StageError(f"{path}: not a mixture's file (id, source, segments of text, trained): {error}") from None

    def batches() -> Iterator[pa.RecordBatch]:
        with file:
            try:
                yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=list(_columns()))
            except pa.ArrowException as error:
                raise StageError(f"{path}: damaged: {error}; build the mixture again") from None

    return file.metadata.num_rows, batches()


def _columns() -> dict[str, Any]:
    import pyarrow as pa

    segment = pa.struct([("text", pa.string()), ("trained", pa.bool_())])
    return {"id": pa.string(), "source": pa.string(), "segments": pa.list_(segment)}


def _segments(batch: Any, path: str) -> Iterator[Segments]:
    """Yield each row's segments; flat columns, since a Python dict for each segment takes longer than its tokens."""
    import pyarrow.compute as pc

    column = batch.column("segments")
    flat = pc.list_flatten(column)
    texts, flags = (pc.struct_field(flat, name) for name in ("text", "trained"))
    pairs = list(zip(texts.to_pylist(), flags.to_pylist(), strict=True))
    start = 0
    for row, count in enumerate(pc.list_value_length(column).to_pylist()):
        segments = pairs[start : start + (count or 0)]
        start += count or 0
        if not segments or not segments[-1][1] or any(text is None for text, _ in segments):
            name = batch.column("id")[row].as_py()
            raise StageError(f"{path}: row {name!r} doesn't end in a model turn; build the mixture again")
        yield segments
