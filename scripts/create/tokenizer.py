"""The new model's `tokenizer.model`: trained on a mixture, or taken from a download."""

import io
from collections.abc import Iterator
from pathlib import Path

from scripts.artifact.stage import StageError

_BATCH_ROWS = 1024
_MAX_LINE_BYTES = 4192
"""sentencepiece drops longer lines silently, so lines are cut before."""


def downloaded_tokenizer(folder: Path) -> bytes:
    """Return the bytes of a download's `tokenizer.model`, or of its only `*.model` file under another name.

    Raises:
        StageError: the download holds none, or several.
    """
    models = sorted(folder.glob("*.model"))
    path = folder / "tokenizer.model" if len(models) != 1 else models[0]
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:10])
        raise StageError(f"{folder}: holds no tokenizer.model (found: {found}); add the file to the download's fetch")
    return path.read_bytes()


def trained_tokenizer(train: Path, vocab_size: int | None) -> bytes:
    """Return a sentencepiece BPE trained on a mixture's training rows, with Llama 2's settings.

    One thread and no sampling, so the bytes depend on the rows alone. Ids: 0 unknown, 1 begin, 2 end, then 256 bytes.

    Raises:
        StageError: no vocabulary size, rows too few for it, or a file that is no mixture's.
    """
    import pyarrow as pa
    import sentencepiece

    if vocab_size is None:
        raise StageError("tokenizer.vocab_size is missing; a tokenizer trained on a mixture needs it (300 to 65536)")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(train),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            character_coverage=0.99995,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            max_sentence_length=_MAX_LINE_BYTES,
            shuffle_input_sentence=False,
            num_threads=1,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            minloglevel=2,
        )
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise StageError(f"{train}: not a mixture's file (segments of text): {error}") from None
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise StageError(
            f"{train}: no tokenizer of {vocab_size} pieces could be trained: {reason} "
            f"Lower tokenizer.vocab_size or give the mixture more rows"
        ) from None
    return model.getvalue()


def _lines(train: Path) -> Iterator[str]:
    """Yield the lines of all segments in file order; sentencepiece learns nothing across lines."""
    import pyarrow.parquet as pq

    # UTF-8 needs up to 4 bytes a character.
    step = _MAX_LINE_BYTES // 4
    file = pq.ParquetFile(train, pre_buffer=False)  # else it keeps all that was read
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=["segments"]):
        for segments in batch.column(0).to_pylist():
            for segment in segments:
                for line in segment["text"].split("\n"):
                    for start in range(0, len(line), step):
                        yield line[start : start + step]
