"""Placeholders of chat cards and of PIPPA's redaction, replaced by names."""

import re

from scripts.clean.wording import Wording

# Common, of no particular gender: the chat's own pronouns stay right. Several, or the model learns one user.
USER_NAMES = ("Alex", "Ash", "Casey", "Jamie", "Jordan", "Kit", "Max", "Morgan", "Quinn", "Riley", "Robin", "Sam")

_CHAR = re.compile(r"\{\{\s*char\s*\}\}|<BOT>", re.IGNORECASE)
_USER = re.compile(
    r"\{\{\s*(?:user|random_user_\d+)\s*\}\}|<USER>"
    r"|\[(?:(?:NAME|FIRST_NAME|USERNAME|NAME_IN_MESSAGE)_)?REDACTED\]",
    re.IGNORECASE,
)


def user_name(wording: Wording, *chat: object) -> str:
    """Return the user's name in a chat; equal for all uploads of one chat, so that duplicates stay equal."""
    return USER_NAMES[wording.pick(len(USER_NAMES), "user_name", *chat)]


def fill_names(text: str, char: str, user: str) -> str:
    """Replace {{char}}, {{user}}, <BOT>, <USER> and PIPPA's redaction tokens (which mean the user)."""
    if "{" in text or "<" in text or "[" in text:
        return _USER.sub(lambda _: user, _CHAR.sub(lambda _: char, text))
    return text
