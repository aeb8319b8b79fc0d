"""Which row of the second model meets which row of the first, for embed_tokens and lm_head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.artifact.stage import StageError
from scripts.merge.models import ModelFolder, read_json


@dataclass(frozen=True)
class Rows:
    """Consecutive rows [start, stop) of the output. `second` is the second model's first row, None for none."""

    start: int
    stop: int
    second: int | None


def row_map(first: ModelFolder, second: ModelFolder, policy: str) -> list[Rows]:
    """Return the runs of rows in order, covering each row of the first model once.

    Args:
        first: model whose vocabulary stays.
        second: model whose surplus rows are dropped.
        policy: `error` and `first_model_rows` pair equal ids, `by_token` pairs equal token texts.

    Raises:
        StageError: `by_token` without a tokenizer that can be read.
    """
    ours, theirs = int(first.config["vocab_size"]), int(second.config["vocab_size"])
    if policy != "by_token":
        common = min(ours, theirs)
        return [Rows(0, common, 0), *([Rows(common, ours, None)] if ours > common else [])]
    place = {text: i for text, i in tokens_of(second.folder).items() if i < theirs}
    partner: list[int | None] = [None] * ours
    for text, i in tokens_of(first.folder).items():
        if i < ours:
            partner[i] = place.get(text)
    return _runs(partner)


def _runs(partner: Sequence[int | None]) -> list[Rows]:
    runs: list[Rows] = []
    for row, other in enumerate(partner):
        last = runs[-1] if runs else None
        if last is not None and other == (None if last.second is None else last.second + row - last.start):
            runs[-1] = Rows(last.start, row + 1, last.second)
        else:
            runs.append(Rows(row, row + 1, other))
    return runs


def tokens_of(folder: Path) -> dict[str, int]:
    """Return {token text: id} of a model folder, from tokenizer.json or tokenizer.model, and added_tokens.json."""
    path = folder / "tokenizer.json"
    tokens: dict[str, int] = {}
    if path.is_file():
        data = read_json(path)
        vocabulary = data.get("model", {}).get("vocab")
        if not isinstance(vocabulary, Mapping):
            raise StageError(f"{path}: model.vocab is no table of tokens; by_token can't use it")
        tokens.update({str(k): int(v) for k, v in vocabulary.items()})
        tokens.update({str(item["content"]): int(item["id"]) for item in data.get("added_tokens", [])})
    elif (folder / "tokenizer.model").is_file():
        from sentencepiece import SentencePieceProcessor  # only this policy needs it

        processor = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        tokens.update({processor.id_to_piece(i): i for i in range(processor.get_piece_size())})
    else:
        raise StageError(f"{folder}: vocabulary: by_token needs tokenizer.json or tokenizer.model here")
    added = folder / "added_tokens.json"
    if added.is_file():
        tokens.update({str(k): int(v) for k, v in read_json(added).items()})
    return tokens
