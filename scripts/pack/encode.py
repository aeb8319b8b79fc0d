"""Segments of rows -> token ids and flags, many rows at once."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scripts.recipe.pack import PackSettings
from scripts.recipe.tokenizer import Ids, Tokenizer

Segments = Sequence[tuple[str, bool]]
"""Text of each segment, and whether the model wrote it."""


class Encoded(NamedTuple):
    """Token ids of a batch of rows, and flags: 1 where the model learns; both `[tokens]`, `lengths` `[rows]`."""

    ids: Ids
    trained: NDArray[np.uint8]
    lengths: NDArray[np.int64]

    def up_to(self, length: int) -> "Encoded":
        """Return this without the ids of longer rows; `lengths` stays."""
        fits = np.repeat(self.lengths <= length, self.lengths)
        return Encoded(self.ids[fits], self.trained[fits], self.lengths)


class Piece(NamedTuple):
    """A part of a row: text, or copies of a control token."""

    text: str
    continued: bool
    trained: bool
    control: int = -1
    copies: int = 0


def encode_row(tokenizer: Tokenizer, segments: Segments, settings: PackSettings) -> tuple[Ids, NDArray[np.uint8]]:
    """Return one row's ids and trained flags, both `[tokens]`, see `encode_rows`."""
    row = encode_rows(tokenizer, [segments], settings)
    return row.ids, row.trained


def encode_rows(tokenizer: Tokenizer, rows: Iterable[Segments], settings: PackSettings) -> Encoded:
    """Return ids and trained flags of rows, one after another; each is BOS, the text, EOS.

    With `tokenization: turns`, at every model turn the ids before it are those of the chat template's generation
    prompt, and the whole row is the template's rendering of the conversation as long as no merge of the vocabulary
    crosses from a marker into a turn (a quote mark after `<|model|>` does in Llama's, and only in the history that
    inference renders; what is generated never does). With `halves`, the original's: BOS + ids of all before the
    last model turn + ids of that turn + EOS, where the halves are tokenized separately, so that turn begins with
    a space.

    Source:
        reference of `halves`: axolotl f4746507f, prompt_strategies/metharme.py.
    """
    pieces: list[Piece] = []
    starts = []
    for segments in rows:
        starts.append(len(pieces))
        pieces.append(Piece("", False, settings.boundary_label == "keep", tokenizer.bos_id, 1))
        pieces += _halves(segments) if settings.tokenization == "halves" else _turns(segments, tokenizer.eos_id)
        pieces.append(Piece("", False, True, tokenizer.eos_id, settings.eos_count))
    texts = [piece for piece in pieces if piece.control < 0]
    ids, text_counts = tokenizer.encode_all([p.text for p in texts], [p.continued for p in texts])
    control = np.array([piece.control for piece in pieces], np.int64)
    counts = np.array([piece.copies for piece in pieces], np.int64)
    counts[control < 0] = text_counts
    controls = np.repeat(control, counts)
    whole = controls.astype(tokenizer.dtype)
    whole[controls < 0] = ids
    everything = settings.train_on_inputs
    trained = np.array([piece.trained or (everything and piece.control < 0) for piece in pieces], np.uint8)
    lengths = np.add.reduceat(counts, starts) if starts else np.zeros(0, np.int64)
    return Encoded(whole, np.repeat(trained, counts), lengths)


def _halves(segments: Segments) -> list[Piece]:
    context = "".join(text for text, _ in segments[:-1])
    return [Piece(context, False, False), Piece(segments[-1][0], False, True)]


def _turns(segments: Segments, end: int) -> Iterator[Piece]:
    """Yield contexts and model turns; every model turn but the last ends in EOS (the last gets `eos_count`)."""
    context, turns = "", 0
    for text, model_wrote in segments:
        if model_wrote:
            if turns:
                yield Piece("", False, True, end, 1)
            yield Piece(context, False, False)
            yield Piece(text, True, True)
            context, turns = "", turns + 1
        else:
            context += text
