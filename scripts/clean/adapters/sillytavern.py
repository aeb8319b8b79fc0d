"""SillyTavern JSON lines: an optional header `{user_name, character_name, chat_metadata}`, then `{name, is_user, mes}`.

A further header begins a further chat; so does a further file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.clean.episode import Outcomes, RawEpisode, Refused, RowError, Turn
from scripts.clean.names import fill_names, user_name
from scripts.clean.rows import json_rows, refusal, source_files, table, text
from scripts.clean.wording import Wording
from scripts.recipe.clean import SillyTavern


def read(spec: SillyTavern, folder: Path, wording: Wording) -> Outcomes:
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
            yield from chat.finished(wording)
            chat = header
        yield from chat.finished(wording)


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
        self._generators: dict[str, None] = {}

    @property
    def begun(self) -> bool:
        """Whether a speaker has said something."""
        return bool(self._turns)

    def add(self, value: Mapping[str, Any]) -> None:
        """Take one message; notices of the program itself, and what follows a broken line, only go to the gate."""
        said, others = _said(value)
        name = text(value, "name", optional=True).strip()
        is_user = value.get("is_user")
        if is_user is not None and not isinstance(is_user, bool):
            raise RowError(f"is_user: found {is_user!r:.60}, needs true or false")
        if is_user is None:
            # Early versions left the mark out and called the user "You".
            if not name:
                raise RowError("neither is_user nor name: the speaker is unknown")
            is_user = name == "You" or name == self.user
        if self.broken or value.get("is_system") is True:
            self._unused += [said, *others]
            return
        if not is_user and not self.character:
            self.character = name
        self._turns.append(Turn("user" if is_user else "model", said))
        self._unused += others
        if not is_user:
            self._generators.update(_written_by(value))

    def finished(self, wording: Wording) -> Outcomes:
        """Yield the chat; a header without a message is none."""
        if not self._turns:
            if self._unused:
                yield Refused(self.line, self.file, "blank", "no message of a speaker", "\n".join(self._unused))
            return
        character = self.character or "the character"
        raw = [turn.text for turn in self._turns]
        # "You" and "User" are what the program shows for an unnamed user, not names to call someone by.
        named = self.user if self.user not in {"", "You", "User", "unused"} else ""
        user = named or user_name(wording, character, raw[0])
        system = self.note or f"You are {character} in a role-play with {user}. Stay in character."
        turns = tuple(Turn(turn.role, fill_names(turn.text, character, user)) for turn in self._turns)
        key = "\x1f".join((character, *raw))
        context, by = "\n".join(self._unused), tuple(self._generators)
        system = fill_names(system, character, user)
        yield RawEpisode(self.line, self.file, key, system, turns, context, generators=by)


def _said(value: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return (the message as it stands in the chat, its other versions).

    `swipes` are answers that the user swiped away; `mes` repeats the chosen one. Where `mes` is blank, as some
    exports leave it, the chosen one is `swipes[swipe_id]`. The others only go to the gate.
    """
    said = text(value, "mes")
    swipes = value.get("swipes")
    if swipes is None:
        return said, []
    if not isinstance(swipes, list) or not all(isinstance(swipe, str) for swipe in swipes):
        raise RowError("swipes: needs a list of texts")
    versions = [text({"swipes": swipe}, "swipes") for swipe in swipes]
    chosen = value.get("swipe_id")
    if not said.strip() and versions:
        valid = isinstance(chosen, int) and not isinstance(chosen, bool) and 0 <= chosen < len(versions)
        said = versions[chosen if valid else -1]  # type: ignore[index]
    return said, [version for version in versions if version != said]


def _written_by(value: Mapping[str, Any]) -> dict[str, None]:
    """Return the model that the program notes beside an answer, else the service.

    The service alone may mislead: "openai" also stands for other models behind an interface of that kind.
    """
    extra = value.get("extra")
    named = [extra.get("model"), extra.get("api")] if isinstance(extra, dict) else []
    return dict.fromkeys([name for name in named if isinstance(name, str) and name][:1])
