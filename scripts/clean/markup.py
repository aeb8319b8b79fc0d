"""Markup of forums and web pages: HTML, BBCode, quotes of others, and what players say out of character."""

import re
from html.parser import HTMLParser

_BREAKS = frozenset({"br", "p", "div", "li", "tr", "hr", "h1", "h2", "h3", "blockquote"})
_HIDDEN = frozenset({"script", "style", "blockquote"})
_HTML = re.compile(r"</?(?:p|br|div|span|i|b|em|strong|hr|blockquote|center|font)\b[^<>]{0,200}>", re.IGNORECASE)

# Words of others, and what is no text. [spoiler] stays: it is the author's own.
_BBCODE_HIDDEN = r"quote|img|media|video|youtube|attach"
_BBCODE_SHOWN = (
    r"b|i|u|s|url|email|color|colour|size|font|center|left|right|align|justify|indent|spoiler|list|\*|hr|sub|sup"
    r"|highlight|user|code|table|tr|td|h|h1|h2|h3|abbr|acronym|anchor|bg|border|div|float|heading"
)
_BBCODE = re.compile(rf"\[(/?)({_BBCODE_HIDDEN}|{_BBCODE_SHOWN})(?:[= ][^\[\]\n]{{0,300}})?\]", re.IGNORECASE)
_HIDES = frozenset(_BBCODE_HIDDEN.split("|"))

_ASIDE = re.compile(r"\(\((?:[^()]|\([^()]*\)){0,2000}\)\)|[(\[]\s*OOC\b[^()\[\]]{0,2000}[)\]]", re.IGNORECASE)
_SPACES = re.compile(r"[ \t]{2,}")
_OUT_OF_CHARACTER = re.compile(r"^\s*(?:\(\(|\[?\(?OOC\b)", re.IGNORECASE)
_OOC_WORD = re.compile(r"\booc\b", re.IGNORECASE)


def visible_text(html: str) -> str:
    """Return what a reader sees of HTML, without quotes of others; blocks begin a new line."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return "".join(reader.parts)


def looks_like_html(text: str) -> bool:
    """Whether a text holds tags that only a web page has."""
    return "<" in text and _HTML.search(text) is not None


def without_bbcode(text: str) -> str:
    """Return text without BBCode: tags go, what stands between them stays, but for quotes of others and pictures.

    A tag whose partner is missing only goes itself: a forgotten [/quote] must not swallow the rest of the post.
    """
    if "[" not in text:
        return text
    gone: list[tuple[int, int]] = []
    waiting: dict[str, list[int]] = {}
    for tag in _BBCODE.finditer(text):
        gone.append(tag.span())
        name = tag[2].lower()
        if name not in _HIDES:
            continue
        if not tag[1]:
            waiting.setdefault(name, []).append(tag.start())
        elif waiting.get(name):
            gone.append((waiting[name].pop(), tag.end()))
    parts, at = [], 0
    for start, end in sorted(gone):
        if start > at:
            parts.append(text[at:start])
        at = max(at, end)
    return "".join([*parts, text[at:]])


def in_character(paragraphs: list[str]) -> list[str]:
    """Return the paragraphs that belong to the play: asides in ((double parentheses)) or marked OOC go."""
    kept = []
    for paragraph in paragraphs:
        told = (
            _SPACES.sub(" ", _ASIDE.sub("", paragraph)).strip() if "(" in paragraph or "[" in paragraph else paragraph
        )
        if told and not _OUT_OF_CHARACTER.match(told):
            kept.append(told)
    return kept


def out_of_character_title(title: str, loose: bool) -> bool:
    """Whether a title says that the thread is talk about the play.

    Args:
        title: of a thread or story.
        loose: as the original builder, which took any title that holds the three letters, "Mooch" too.
    """
    return "ooc" in title.lower() if loose else _OOC_WORD.search(title) is not None


class _Reader(HTMLParser):
    """Collects the visible text of a post."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Break the line at blocks; hide what is not the author's own text."""
        self._hidden += tag in _HIDDEN
        if tag in _BREAKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """Break the line, and show text again behind a hidden block."""
        self._hidden = max(0, self._hidden - (tag in _HIDDEN))
        if tag in _BREAKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        """Take visible text."""
        if not self._hidden:
            self.parts.append(data)
