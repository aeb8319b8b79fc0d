"""Rows of a mixture -> token ids and flags. T: tokens of all rows, one after another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scripts.artifact.stage import StageError
from scripts.artifact.workers import ordered
from scripts.pack.npy import NpyWriter
from scripts.recipe.pack import PackSettings, PackSpec
from scripts.recipe.tokenizer import Ids, Tokenizer

if TYPE_CHECKING:
    import pyarrow as pa

# 1,024 rows of a mean 4 kB: 4 MB travel to a process and 2 MB of ids back.
_BATCH_ROWS = 1024
_ROWS_WORTH_A_PROCESS = 2048

Segments = Sequence[tuple[str, bool]]
"""Text of each segment, and whether the model wrote it."""


@dataclass
class Packed:
    """What was written of one split."""

    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Tokens of each row `[rows]`."""
    too_long: int = 0
    trained_tokens: int = 0
    sources: dict[str, dict[str, int]] = field(default_factory=dict)


def encode_row(tokenizer: Tokenizer, segments: Segments, settings: PackSettings) -> tuple[Ids, NDArray[np.uint8]]:
    """Return one row's ids and trained flags, both `[tokens]`: BOS, the text, EOS.

    With `tokenization: turns`, at every model turn the ids before it are those of the chat template's generation
    prompt, and the whole row is the template's rendering of the conversation as long as no merge of the vocabulary
    crosses from a marker into a turn (a quote mark after `<|model|>` does in Llama's, and only in the history that
    inference renders; what is generated never does). With `halves`, the original's: BOS + ids of all before the
    last model turn + ids of that turn + EOS, where the halves are tokenized separately, so that turn begins with
    a space.

    Source:
        reference of `halves`: axolotl f4746507f, prompt_strategies/metharme.py.
    """
    pieces: list[tuple[Ids, bool]] = []
    if settings.tokenization == "halves":
        context = "".join(text for text, _ in segments[:-1])
        pieces = [(tokenizer.encode(context), False), (tokenizer.encode(segments[-1][0]), True)]
    else:
        pieces = _turns(tokenizer, segments)
    control = np.array([tokenizer.bos_id, tokenizer.eos_id], dtype=tokenizer.dtype)
    ids = np.concatenate([control[:1], *(part for part, _ in pieces), control[1:].repeat(settings.eos_count)])
    trained = np.ones(len(ids), dtype=np.uint8)
    trained[0] = settings.boundary_label == "keep"
    if not settings.train_on_inputs:
        start = 1
        for part, model_wrote in pieces:
            trained[start : start + len(part)] = model_wrote
            start += len(part)
    return ids, trained


def _turns(tokenizer: Tokenizer, segments: Segments) -> list[tuple[Ids, bool]]:
    """Return contexts and model turns; every model turn but the last ends in EOS (the last gets `eos_count`)."""
    pieces: list[tuple[Ids, bool]] = []
    context = ""
    end = np.array([tokenizer.eos_id], dtype=tokenizer.dtype)
    for text, model_wrote in segments:
        if model_wrote:
            if pieces:
                pieces.append((end, True))
            pieces += [(tokenizer.encode(context), False), (tokenizer.encode_continuation(text), True)]
            context = ""
        else:
            context += text
    return pieces


def pack_split(
    mixture: Path, split: str, out: Path, load: Callable[[], Tokenizer], spec: PackSpec, threads: int = 1
) -> Packed:
    """Write `<split>_input_ids.npy`, `_trained.npy`, `_rows.npy` and `_row_ids.parquet`, rows in the mixture's order.

    Rows longer than `sequence_len` are dropped whole and counted: a turn is never truncated. Memory holds one batch of
    rows for each process, and id and length of all rows; the bytes are the same for any number of threads.

    Args:
        load: returns the tokenizer; called in each process.
        threads: processes that tokenize.

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
        rows, batches = mixture_batches(path)
        # A process starts in about half a second, in which 1,000 rows are done.
        processes = min(threads, rows // _ROWS_WORTH_A_PROCESS)
        make = partial(_encoder, load, spec.settings, str(path))
        for batch, done in ordered(make, batches, processes):
            all_ids.append(done.ids)
            all_trained.append(done.trained)
            fits = done.lengths <= spec.settings.sequence_len
            lengths.append(done.lengths[fits])
            kept.append(pa.table(batch.select(["id", "source"]).filter(pa.array(fits)).columns, schema=schema))
            packed.too_long += int((~fits).sum())
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


class Encoded(NamedTuple):
    """Token ids of a batch of rows; `ids` and `trained` hold the rows that fit, `lengths` all of them."""

    ids: Ids
    trained: NDArray[np.uint8]
    lengths: NDArray[np.int64]


def _encoder(load: Callable[[], Tokenizer], settings: PackSettings, path: str) -> Callable[[Any], Encoded]:
    """Return what a process does with a batch of rows."""
    tokenizer = load()

    def encode(batch: Any) -> Encoded:
        ids = [np.zeros(0, dtype=tokenizer.dtype)]
        trained = [np.zeros(0, dtype=np.uint8)]
        lengths = np.zeros(batch.num_rows, dtype=np.int64)
        for row, segments in enumerate(_segments(batch, path)):
            row_ids, row_trained = encode_row(tokenizer, segments, settings)
            lengths[row] = len(row_ids)
            if len(row_ids) <= settings.sequence_len:
                ids.append(row_ids)
                trained.append(row_trained)
        return Encoded(np.concatenate(ids), np.concatenate(trained), lengths)

    return encode


def mixture_batches(path: Path) -> tuple[int, "Iterator[pa.RecordBatch]"]:
    """Return the number of rows of a mixture's parquet file, and its batches in file order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
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
