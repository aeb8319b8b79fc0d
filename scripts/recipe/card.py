"""What all cards share: text that can't break them, and shares."""

import re


def inert(value: str) -> str:
    """Return a string of a recipe as inert Markdown: no markup, no table cell and no line can be broken by it."""
    plain = " ".join(value.split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|!~])", r"\\\1", plain)


def percent(part: float, whole: float) -> str:
    """Return a part in percent with one decimal; what there is of it never prints as nothing."""
    share = 100 * part / whole if whole else 0.0
    return "<0.1" if 0 < share < 0.05 else f"{share:.1f}"
