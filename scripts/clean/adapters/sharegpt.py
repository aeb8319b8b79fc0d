"""ShareGPT form: `{id, conversations: [{from, value}]}` in a JSON array or in JSON lines."""

from collections.abc import Iterator
from pathlib import Path

from scripts.clean.episode import Outcomes, RawEpisode, Role, RowError, Turn
from scripts.clean.rows import Row, items, json_rows, parse_rows, source_files, table, text
from scripts.clean.wording import Wording
from scripts.recipe.clean import ShareGpt

_ROLES: dict[str, Role] = {"human": "user", "user": "user", "gpt": "model", "model": "model", "assistant": "model"}


def read(spec: ShareGpt, folder: Path, wording: Wording) -> Outcomes:
    """Yield the conversations of all `.json` and `.jsonl` files; a first message from `system` is the system text."""
    for path in source_files(folder, ".json", ".jsonl"):
        yield from parse_rows(json_rows(path), _conversation)


def _conversation(row: Row) -> Iterator[RawEpisode]:
    value = table(row.value)
    system, turns = "", []
    for index, item in enumerate(items(value, "conversations")):
        where = f"conversations[{index}]"
        message = table(item, where)
        who, said = text(message, "from"), text(message, "value")
        if who == "system" and index == 0:
            system = said
        elif who in _ROLES:
            turns.append(Turn(_ROLES[who], said))
        else:
            raise RowError(f"{where}.from: found {who!r:.60}; allowed: {', '.join(sorted(_ROLES))}, system (first)")
    native = value.get("id")
    key = str(native) if isinstance(native, str | int) and native != "" else ""
    yield RawEpisode(row.line, row.file, key or "\x1f".join((system, *(t.text for t in turns))), system, tuple(turns))
