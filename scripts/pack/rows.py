"""Rows of a mixture -> token ids and flags. T: tokens of all rows, one after another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.artifact.stage import StageError
from scripts.pack.npy import NpyWriter
from scripts.recipe.pack import PackSettings, PackSpec
from scripts.recipe.tokenizer import Ids, Tokenizer

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


def pack_split(mixture: Path, split: str, out: Path, tokenizer: Tokenizer, spec: PackSpec) -> Packed:
    """Write `<split>_input_ids.npy`, `_trained.npy`, `_rows.npy` and `_row_ids.parquet`, rows in the mixture's order.

    Rows longer than `sequence_len` are dropped whole and counted: a turn is never truncated.

    Raises:
        StageError: the parquet file is missing, lacks columns, or a row doesn't end in a model turn.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    packed = Packed()
    lengths: list[int] = []
    kept: list[tuple[str, str]] = []
    with (
        NpyWriter(out / f"{split}_input_ids.npy", np.uint16) as all_ids,
        NpyWriter(out / f"{split}_trained.npy", np.uint8) as all_trained,
    ):
        for row_id, source, segments in mixture_rows(mixture / f"{split}.parquet"):
            ids, trained = encode_row(tokenizer, segments, spec.settings)
            if len(ids) > spec.settings.sequence_len:
                packed.too_long += 1
                continue
            all_ids.append(ids)
            all_trained.append(trained)
            lengths.append(len(ids))
            kept.append((row_id, source))
            packed.trained_tokens += int(trained.sum())
            counts = packed.sources.setdefault(source, {"rows": 0, "tokens": 0})
            counts["rows"] += 1
            counts["tokens"] += len(ids)
    packed.lengths = np.array(lengths, dtype=np.int64)
    np.save(out / f"{split}_rows.npy", np.concatenate([[0], np.cumsum(packed.lengths)]).astype(np.int64))
    columns = {"id": [row_id for row_id, _ in kept], "source": [source for _, source in kept]}
    schema = pa.schema([("id", pa.string()), ("source", pa.string())])
    pq.write_table(pa.table(columns, schema=schema), out / f"{split}_row_ids.parquet", compression="zstd")
    return packed


def mixture_rows(path: Path) -> Iterator[tuple[str, str, Segments]]:
    """Yield (id, source, segments) of a mixture's parquet file, in file order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1024, columns=["id", "source", "segments"]):
            for row in batch.to_pylist():
                yield row["id"], row["source"], _checked(row, path)
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise StageError(f"{path}: not a mixture's file (id, source, segments of text, trained): {error}") from None


def _checked(row: dict[str, Any], path: Path) -> Segments:
    segments = [(part["text"], part["trained"]) for part in row["segments"]]
    if not segments or not segments[-1][1]:
        raise StageError(f"{path}: row {row['id']!r} doesn't end in a model turn; build the mixture again")
    return segments
