"""How figures and names look on a page, and the templates that all pages share."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from scripts.report.directions import arrow
from scripts.report.lineage import anchor
from scripts.report.numbers import by_luck, fixed, percent

_CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}
TEMPLATES = Path(__file__).parent / "templates"


def template(name: str) -> Template:
    """Return a template of this folder, with escaping and the filters of all pages."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_without_control,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        count=count, decimal=decimal, signed=signed, scientific=scientific, short=short, anchor=anchor
    )
    environment.filters.update(
        size=size,
        duration=duration,
        words=words,
        css_anchor=css_anchor,
        arrow=arrow,
        number_of=number_of,
        share=share,
        by_luck=by_luck,
    )
    return environment.get_template(name)


def _without_control(value: object) -> object:
    """Replace control characters: HTML has no way to write them, and a page that is printed in a terminal drives it."""
    return value.translate(_CONTROL) if type(value) is str else value


def style() -> Markup:
    """Return the style sheet of all pages."""
    return Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file


def count(value: float | None) -> str:
    """Return 1,234 or a dash."""
    return "–" if value is None else f"{value:,.0f}"


def number_of(value: int, one: str, more: str) -> str:
    """Return a number with its word: 1 value was, 1,234 values were."""
    return f"{value:,} {one if value == 1 else more}"


def decimal(value: float | None, digits: int = 4) -> str:
    """Return a number of fixed digits or a dash."""
    return "–" if value is None else fixed(value, digits).replace("-", "−")


def share(value: float | None) -> str:
    """Return percent of one digit, never 0.0 or 100.0 for what is neither nothing nor all, or a dash."""
    return "–" if value is None else percent(value)


def signed(value: float | None, digits: int = 2) -> str:
    """Return a number with its sign (a true minus; none if it rounds to zero) or a dash."""
    return "–" if value is None else fixed(value, digits, sign=True).replace("-", "−")


def scientific(value: float | None) -> str:
    """Return a number of four digits, however large or small it is, or a dash."""
    return "–" if value is None else f"{value:.4g}".replace("-", "−", int(value < 0))


def short(digest: str) -> str:
    """Return the first 12 digits of a digest: enough to tell artifacts apart by eye."""
    return digest[:12]


def css_anchor(artifact: str) -> str:
    """Return the artifact's id as a CSS selector writes it: a name's dots are no syntax there."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda m: f"\\{ord(m[0]):x} ", anchor(artifact))


def size(value: float | None) -> str:
    """Return bytes as 512 B, 1.2 MB, 26.0 GB (powers of 1,000)."""
    if value is None:
        return "–"
    # A unit begins where the one below would print 1000: 999,990 bytes are 1.0 MB.
    for factor, unit, least in ((1e9, "GB", 999.95e6), (1e6, "MB", 999.95e3), (1e3, "kB", 999.5)):
        if value >= least:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float | None) -> str:
    """Return 4.2 s, 3 min 20 s or 5 h 7 min."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"


def words(name: str) -> str:
    """Return a name of the code as people read it: `too_few_exchanges` becomes `too few exchanges`."""
    return name.replace("_", " ")
