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


class Plan(NamedTuple):
    """What rows are made of, before any text is encoded: pieces of text, and copies of control tokens."""

    texts: list[str]
    continued: list[bool]
    """Whether a text goes on where another one stopped `[texts]`."""
    control: NDArray[np.int64]
    """Id of a control token, or -1 for the next text `[pieces]`."""
    copies: NDArray[np.int64]
    """Of the control token `[pieces]`."""
    trained: NDArray[np.uint8]
    """Whether the model learns it `[pieces]`."""
    starts: list[int]
    """First piece of each row `[rows]`."""


def encode_row(tokenizer: Tokenizer, segments: Segments, settings: PackSettings) -> tuple[Ids, NDArray[np.uint8]]:
    """Return one row's ids and trained flags, both `[tokens]`, see `plan`."""
    row = encode_rows(tokenizer, [segments], settings)
    return row.ids, row.trained


def encode_rows(tokenizer: Tokenizer, rows: Iterable[Segments], settings: PackSettings) -> Encoded:
    """Return ids and trained flags of rows, one after another, see `plan`."""
    return encode_plan(tokenizer, plan(rows, tokenizer.bos_id, tokenizer.eos_id, settings))


def plan(rows: Iterable[Segments], bos_id: int, eos_id: int, settings: PackSettings) -> Plan:
    """Return what rows are made of; each is BOS, the text, EOS.

    With `tokenization: turns`, at every model turn the ids before it are those of the chat template's generation
    prompt, and the whole row is the template's rendering of the conversation as long as no merge of the vocabulary
    crosses from a marker into a turn (a quote mark after `<|model|>` does in Llama's, and only in the history that
    inference renders; what is generated never does). With `halves`, the original's: BOS + ids of all before the
    last model turn + ids of that turn + EOS, where the halves are tokenized separately, so that turn begins with
    a space.

    Source:
        reference of `halves`: axolotl f4746507f, prompt_strategies/metharme.py.
    """
    cut = _halves if settings.tokenization == "halves" else _turns
    texts: list[str] = []
    continued: list[bool] = []
    control: list[int] = []
    trained: list[bool] = []
    starts: list[int] = []
    copies: list[int] = []
    for segments in rows:
        starts.append(len(control))
        control.append(bos_id)
        copies.append(1)
        trained.append(settings.boundary_label == "keep")
        for text, goes_on, model_wrote in cut(segments):
            texts.append(text)
            continued.append(goes_on)
            control.append(-1)
            copies.append(0)
            trained.append(model_wrote or settings.train_on_inputs)
            if model_wrote:
                control.append(eos_id)
                copies.append(1)
                trained.append(True)
        copies[-1] = settings.eos_count
    numbers = np.array(control, np.int64), np.array(copies, np.int64)
    return Plan(texts, continued, *numbers, np.array(trained, np.uint8), starts)


def encode_plan(tokenizer: Tokenizer, rows: Plan) -> Encoded:
    """Return the ids and flags of planned rows."""
    ids, lengths = tokenizer.encode_all(rows.texts, rows.continued)
    counts = rows.copies.copy()
    counts[rows.control < 0] = lengths
    controls = np.repeat(rows.control, counts)
    whole = controls.astype(tokenizer.dtype)
    whole[controls < 0] = ids
    of_rows = np.add.reduceat(counts, rows.starts) if rows.starts else np.zeros(0, np.int64)
    return Encoded(whole, np.repeat(rows.trained, counts), of_rows)


def _halves(segments: Segments) -> Iterator[tuple[str, bool, bool]]:
    """Yield text, whether it goes on where another one stopped, and whether the model wrote it."""
    yield "".join(text for text, _ in segments[:-1]), False, False
    yield segments[-1][0], False, True


def _turns(segments: Segments) -> Iterator[tuple[str, bool, bool]]:
    """As `_halves`, for each model turn what came before it and the turn itself."""
    context = ""
    for text, model_wrote in segments:
        if model_wrote:
            yield context, False, False
            yield text, True, True
            context = ""
        else:
            context += text
