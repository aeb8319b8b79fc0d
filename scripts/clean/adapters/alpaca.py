"""Instruction rows: instruction, input, output, or `instances: [{input, output}]` (Self-Instruct seed tasks)."""

from collections.abc import Iterator
from pathlib import Path

from scripts.clean.episode import Outcomes, RawEpisode, RowError, Turn
from scripts.clean.rows import Row, items, json_rows, parse_rows, source_files, table, text
from scripts.clean.wording import Wording
from scripts.recipe.clean import Alpaca


def read(spec: Alpaca, folder: Path, wording: Wording) -> Outcomes:
    """Yield one episode for each answer of all `.jsonl` and `.json` files."""
    for path in source_files(folder, ".jsonl", ".json"):
        yield from parse_rows(json_rows(path), _answers)


def _answers(row: Row) -> Iterator[RawEpisode]:
    value = table(row.value)
    instruction = text(value, "instruction").strip()
    native = value.get("id")
    many = "instances" in value
    instances = (
        [table(item, f"instances[{i}]") for i, item in enumerate(items(value, "instances"))] if many else [value]
    )
    if not instances:
        raise RowError("instances: found an empty list, needs at least one answer")
    # All fields are read before the first episode leaves: a row is accepted or refused as a whole.
    pairs = [(text(one, "input", optional=True).strip(), text(one, "output")) for one in instances]
    for index, (given, answer) in enumerate(pairs):
        question = f"{instruction}\n\n{given}" if given and instruction else instruction or given
        content = f"{question}\x1f{answer}"
        key = f"{native}\x1f{index}" if isinstance(native, str | int) and native != "" else content
        yield RawEpisode(row.line, row.file, key, "", (Turn("user", question), Turn("model", answer)))
