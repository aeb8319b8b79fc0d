"""SillyTavern JSON lines: an optional header `{user_name, character_name, chat_metadata}`, then `{name, is_user, mes}`.

A further header begins a further chat; so does a further file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.clean.episode import Outcomes, RawEpisode, Refused, RowError, Turn
from scripts.clean.names import fill_names, user_name
from scripts.clean.rows import json_rows, refusal, source_files, table, text
from scripts.recipe.clean import SillyTavern


def read(spec: SillyTavern, folder: Path, seed: int) -> Outcomes:
    """Yield the chats of all `.jsonl` files. A line that can't be read is refused, and the chat ends before it."""
    for path in source_files(folder, ".jsonl"):
        chat = _Chat(1, path.name)
        for row in json_rows(path):
            try:
                value = table(row.value) if row.problem is None else _raise(row.problem)
                if "mes" in value:
                    chat.add(value)
                    continue
                if "user_name" not in value and "character_name" not in value:
                    raise RowError("neither a message (mes) nor a header (user_name, character_name)")
                header = _Chat(row.line, path.name, value)
            except RowError as bad:
                chat.broken = chat.broken or chat.begun
                end = "; its chat ends before this line" if chat.broken else ""
                yield refusal(row, RowError(f"{bad.detail}{end}", bad.reason))
                continue
            yield from chat.finished(seed)
            chat = header
        yield from chat.finished(seed)


def _raise(problem: RowError) -> Mapping[str, Any]:
    raise problem


class _Chat:
    """The messages of one chat so far."""

    def __init__(self, line: int, file: str, header: Mapping[str, Any] | None = None) -> None:
        value = header or {}
        self.line, self.file, self.broken = line, file, False
        self.user = text(value, "user_name", optional=True).strip()
        self.character = text(value, "character_name", optional=True).strip()
        metadata = value.get("chat_metadata")
        self.note = text(metadata, "note_prompt", optional=True).strip() if isinstance(metadata, dict) else ""
        self._turns: list[Turn] = []
        self._unused: list[str] = []

    @property
    def begun(self) -> bool:
        """Whether a speaker has said something."""
        return bool(self._turns)

    def add(self, value: Mapping[str, Any]) -> None:
        """Take one message; notices of the program itself, and what follows a broken line, only go to the gate."""
        said, name = text(value, "mes"), text(value, "name", optional=True).strip()
        is_user = value.get("is_user")
        if is_user is not None and not isinstance(is_user, bool):
            raise RowError(f"is_user: found {is_user!r:.60}, needs true or false")
        if is_user is None:
            # Early versions left the mark out and called the user "You".
            if not name:
                raise RowError("neither is_user nor name: the speaker is unknown")
            is_user = name == "You" or name == self.user
        if self.broken or value.get("is_system") is True:
            self._unused.append(said)
            return
        if not is_user and not self.character:
            self.character = name
        self._turns.append(Turn("user" if is_user else "model", said))

    def finished(self, seed: int) -> Outcomes:
        """Yield the chat; a header without a message is none."""
        if not self._turns:
            if self._unused:
                yield Refused(self.line, self.file, "blank", "no message of a speaker", "\n".join(self._unused))
            return
        character = self.character or "the character"
        raw = [turn.text for turn in self._turns]
        # "You" and "User" are what the program shows for an unnamed user, not names to call someone by.
        named = self.user if self.user not in {"", "You", "User", "unused"} else ""
        user = named or user_name(seed, character, raw[0])
        system = self.note or f"You are {character} in a role-play with {user}. Stay in character."
        turns = tuple(Turn(turn.role, fill_names(turn.text, character, user)) for turn in self._turns)
        key = "\x1f".join((character, *raw))
        yield RawEpisode(self.line, self.file, key, fill_names(system, character, user), turns, "\n".join(self._unused))
