"""What all model cards share: text that can't break them."""

import re


def inert(value: str) -> str:
    """Return a string of a recipe as inert Markdown: no markup, no table cell and no line can be broken by it."""
    plain = " ".join(value.split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|!~])", r"\\\1", plain)
