"""What the candidates answered, conversation by conversation, as turns that people can read."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scripts.artifact.stage import StageError
from scripts.recipe.prompt_format import FORMATS, FormatName, PromptFormat

_COLUMNS = ["task", "item", "context", "replies"]


@dataclass(frozen=True)
class Turn:
    """One turn as it is shown."""

    role: str
    """`scene` (the system text), `user` or `reply`."""
    text: str
    cut: bool = False
    """Whether the reply met the limit of new tokens."""


@dataclass(frozen=True)
class Answered:
    """One held-out conversation and what each candidate made of it."""

    source: str
    id: str
    opening: tuple[Turn, ...]
    """What stands before the first reply, the same for all."""
    answers: Mapping[str, tuple[Turn, ...]]
    """For each candidate its replies, with the user's true turns between them."""


def read_answers(
    benchmarks: Mapping[str, Path], task: str, mixes: Mapping[str, Path], formats: Mapping[str, FormatName]
) -> list[Answered]:
    """Return the conversations that all candidates answered, in the order of the task.

    Args:
        benchmarks: folder of each candidate's benchmark.
        task: the task that holds the replies.
        mixes: folders of the mixtures, whose held-out rows were answered.
        formats: prompt format of each mixture.

    Raises:
        StageError: the candidates did not answer the same conversations, or one of them is no held-out row.
    """
    found = {model: _generations(folder, model, task) for model, folder in benchmarks.items()}
    first = next(iter(found))
    for model, rows in found.items():
        if {i: row["context"] for i, row in rows.items()} != {i: row["context"] for i, row in found[first].items()}:
            raise StageError(f"{model} and {first} answered other conversations; run the benchmark of both again")
    wanted = {i: (len(row["replies"]), row["context"]) for i, row in sorted(found[first].items())}
    held = _held_out(mixes, formats, set(wanted.values()))
    answered = []
    for item, asked_for in wanted.items():
        known = held.get(asked_for)
        if known is None:
            raise StageError(f"task {task}, item {item}: no held-out row of {', '.join(mixes)} has this text")
        source, name, asked = known
        answers = {m: tuple(_dialogue(asked[1:], found[m][item]["replies"])) for m in benchmarks}
        answered.append(Answered(source, name, tuple(asked[0]), answers))
    return answered


def _generations(folder: Path, model: str, task: str) -> dict[int, dict[str, Any]]:
    path = folder / "generations.parquet"
    rows = pq.read_table(path, columns=_COLUMNS).to_pylist() if path.is_file() else []
    found = {row["item"]: row for row in rows if row["task"] == task}
    if not found:
        raise StageError(f"{path}: no replies of task {task} by {model}")
    return found


Held = tuple[str, str, list[list[Turn]]]
"""(source, id, for each reply the turns that stand before it)."""


def _held_out(
    mixes: Mapping[str, Path], formats: Mapping[str, FormatName], wanted: Set[tuple[int, str]]
) -> dict[tuple[int, str], Held]:
    """Return the wanted held-out rows by (number of replies, all text that was given before the last of them)."""
    found: dict[tuple[int, str], Held] = {}
    for name, folder in mixes.items():
        layout = FORMATS[formats[name]]
        for row in pq.read_table(folder / "validation.parquet", columns=["id", "source", "segments"]).to_pylist():
            given, asked, text = "", [], ""
            for segment in row["segments"]:
                if not (segment["trained"] and segment["text"]):
                    text += segment["text"]
                    continue
                given += text
                asked.append(list(_turns(text, layout)))
                text, key = "", (len(asked), given)
                if key in wanted:
                    # Twins, or one row in two mixtures: the smallest name, so that their order doesn't matter.
                    held = (row["source"], row["id"], list(asked))
                    found[key] = min(found.get(key, held), held, key=lambda h: h[:2])
    return found


def _turns(text: str, layout: PromptFormat) -> Iterator[Turn]:
    """Yield the turns of what was given before a reply: the markers say whose they are, and aren't shown."""
    text = text.removesuffix(layout.model[0]).removeprefix(layout.between)
    ahead, _, behind = text.partition(layout.user[0])
    scene = ahead.removeprefix(layout.system[0]).removesuffix(layout.system[1]).strip()
    if scene:
        yield Turn("scene", scene)
    for said in filter(None, map(str.strip, behind.split(layout.user[0]))):
        yield Turn("user", said.removesuffix(layout.user[1].strip()).strip())


def _dialogue(asked: Sequence[Sequence[Turn]], replies: Sequence[Mapping[str, str]]) -> Iterator[Turn]:
    for index, reply in enumerate(replies):
        if index:
            yield from asked[index - 1]
        yield Turn("reply", reply["text"].strip(), cut=reply["end"] == "length")
