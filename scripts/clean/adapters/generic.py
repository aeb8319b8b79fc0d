"""Your own data: ShareGPT, OpenAI messages or Alpaca rows, in JSON lines, a JSON array or parquet."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.clean.episode import Outcomes, RawEpisode, Role, RowError, Turn
from scripts.clean.parquetfile import parquet_rows
from scripts.clean.rows import Row, json_rows, kind, parse_rows, source_files, table, text
from scripts.clean.wording import Wording
from scripts.recipe.clean import Generic

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
# What everybody calls each column; the first one that a row has is taken.
_USUAL = {
    "turns": ("conversations", "messages", "conversation"),
    "role": ("from", "role"),
    "text": ("value", "content"),
    "system": ("system", "system_prompt"),
    "instruction": ("instruction", "prompt", "question"),
    "input": ("input", "context"),
    "output": ("output", "response", "completion", "answer"),
    "history": ("history",),
    "id": ("id", "conversation_id"),
    "generator": ("generator", "model"),
}
_FORMS: dict[str, dict[str, tuple[str, ...]]] = {
    "sharegpt": {"turns": ("conversations", "conversation"), "role": ("from",), "text": ("value",)},
    "messages": {"turns": ("messages",), "role": ("role",), "text": ("content",)},
}
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "model", "bot"), "model"),
    **dict.fromkeys(("system", "developer"), "system"),
}


def read(spec: Generic, folder: Path, wording: Wording) -> Outcomes:
    """Yield the rows of all files, each a conversation or a question with its answer.

    Raises:
        StageError: no file of a known kind, or one in which nothing can be read.
    """
    reader = _Reader(spec)
    for path in source_files(folder, *SUFFIXES):
        parquet = path.suffix.lower() == ".parquet"
        rows = parquet_rows(path, lambda schema: list(schema.names)) if parquet else json_rows(path)
        yield from parse_rows(rows, reader.episode)


class _Reader:
    """Finds columns under own or usual names."""

    def __init__(self, spec: Generic) -> None:
        own = {name: (given,) for name, given in spec.columns.model_dump().items() if given is not None}
        self._names: dict[str, tuple[str, ...]] = {**_USUAL, **_FORMS.get(spec.form, {}), **own}
        self._form = spec.form
        self._roles = {**_ROLES, **{name.lower(): role for name, role in spec.roles.items()}}

    def episode(self, row: Row) -> Iterator[RawEpisode]:
        """Yield the episode of one row."""
        value = table(row.value)
        system = self._text(value, "system")
        if self._is_chat(value):
            head, turns = self._messages(value)
            system = "\n\n".join(part for part in (system, head) if part)
        else:
            turns = self._pairs(value)
        content = "\x1f".join((system, *(turn.text for turn in turns)))
        native = value.get(self._found(value, "id") or "")
        known = isinstance(native, str | int) and not isinstance(native, bool) and native != ""
        by = value.get(self._found(value, "generator") or "")
        generators = (by,) if isinstance(by, str) and by else ()
        yield RawEpisode(
            row.line, row.file, str(native) if known else content, system, tuple(turns), generators=generators
        )

    def _found(self, value: Mapping[str, Any], column: str) -> str | None:
        """Return the column's name in this row; parquet has every column in every row, so nulls come last."""
        there = [name for name in self._names[column] if name in value]
        return next((name for name in there if value[name] is not None), there[0] if there else None)

    def _is_chat(self, value: Mapping[str, Any]) -> bool:
        if self._form != "auto":
            return self._form != "alpaca"
        chat = self._found(value, "turns")
        if chat and value[chat] is not None:
            return True
        if self._found(value, "instruction") and self._found(value, "output"):
            return False
        if chat:
            return True
        keys = ", ".join(repr(key)[:40] for key in list(value)[:12]) or "no key"
        raise RowError(
            f"found {keys}; needs {' or '.join(self._names['turns'])} (a list of messages), or "
            f"{self._names['instruction'][0]} and {self._names['output'][0]}; name your own under read.columns"
        )

    def _text(self, value: Mapping[str, Any], column: str) -> str:
        """Return an optional text."""
        name = self._found(value, column)
        return text(value, name, optional=True).strip() if name else ""

    def _needed(self, value: Mapping[str, Any], column: str, where: str = "") -> str:
        name = self._found(value, column)
        if name is None:
            raise RowError(f"{where}{' or '.join(self._names[column])}: found nothing, needs a text")
        try:
            return text(value, name)
        except RowError as bad:
            raise RowError(f"{where}{bad.detail}", bad.reason) from None

    def _messages(self, value: Mapping[str, Any]) -> tuple[str, list[Turn]]:
        """Return (system text, turns); system messages stand before all others."""
        name = self._found(value, "turns")
        found = value.get(name or "")
        if not isinstance(found, list):
            raise RowError(f"{name or ' or '.join(self._names['turns'])}: found {kind(found)}, needs a list")
        if not found:
            raise RowError(f"{name}: found an empty list, needs messages", "blank")
        system: list[str] = []
        turns: list[Turn] = []
        for index, item in enumerate(found):
            where = f"{name}[{index}]"
            message = table(item, where)
            who = self._needed(message, "role", f"{where}.")
            role = self._roles.get(who.strip().lower())
            said = self._content(message, f"{where}.")
            if role in ("user", "model"):
                turns.append(Turn(_role(role), said))
            elif role == "system" and not turns:
                system.append(said.strip())
            else:
                known = ", ".join(sorted(self._roles))
                more = " (before all others)" if role else f"; allowed: {known}; name your own under read.roles"
                raise RowError(f"{where}: speaker {who!r:.60}{more}")
        return "\n\n".join(part for part in system if part), turns

    def _content(self, message: Mapping[str, Any], where: str) -> str:
        """Return what is said; OpenAI's content may be a list of parts, of which only texts can be used."""
        name = self._found(message, "text")
        parts = message.get(name) if name else None
        if not isinstance(parts, list):
            return self._needed(message, "text", where)
        texts = []
        for index, part in enumerate(parts):
            piece = table(part, f"{where}{name}[{index}]")
            if piece.get("type") != "text":
                raise RowError(f"{where}{name}[{index}].type: found {piece.get('type')!r:.40}; allowed: text")
            texts.append(text(piece, "text"))
        return "\n".join(texts)

    def _pairs(self, value: Mapping[str, Any]) -> list[Turn]:
        """Return the turns of an Alpaca row: earlier pairs, then the question with its material and the answer."""
        turns: list[Turn] = []
        history = value.get(self._found(value, "history") or "") or []
        if not isinstance(history, list):
            raise RowError(f"history: found {kind(history)}, needs a list of pairs")
        for index, pair in enumerate(history):
            if not isinstance(pair, list) or len(pair) != 2:
                raise RowError(f"history[{index}]: needs [question, answer]")
            both = {"question": pair[0], "answer": pair[1]}
            turns += [Turn("user", text(both, "question")), Turn("model", text(both, "answer"))]
        asked, given = self._needed(value, "instruction").strip(), self._text(value, "input")
        question = f"{asked}\n\n{given}" if asked and given else asked or given
        return [*turns, Turn("user", question), Turn("model", self._needed(value, "output"))]


def _role(name: str) -> Role:
    return "user" if name == "user" else "model"
