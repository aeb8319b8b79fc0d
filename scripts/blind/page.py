"""The page for testers: one file, no name of any model in it, nothing loaded, nothing sent."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from scripts.recipe.blind import BlindTest


def render(settings: BlindTest, content: Mapping[str, Any]) -> str:
    """Return the page. Its policy runs our script and our style by their digests, and nothing else.

    Args:
        settings: headline and introduction; no candidate is read from it.
        content: `test` and `comparisons`.
    """
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    data = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Inside a script element only `<` can end it or begin a comment; JSON knows it by another spelling.
    data = data.replace("<", "\\u003c")
    return environment.get_template("page.html.j2").render(
        title=settings.title,
        introduction=settings.introduction,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        style_digest=_digest(style),
        script_digest=_digest(script),
        data=Markup(data),  # noqa: S704 - escaped above
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
