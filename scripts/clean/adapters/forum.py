"""Role-play forum CSV: thread_title, message_username, message (HTML); one thread is one episode."""

import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from scripts.clean.csvfile import csv_rows
from scripts.clean.episode import Outcomes, RawEpisode, RowError, Turn
from scripts.clean.rows import refusal, source_files, text
from scripts.clean.text import repair_mojibake, repair_text
from scripts.recipe.base import keyed_hash
from scripts.recipe.clean import Forum

_NEEDED = ("thread_title", "message_username", "message")
_BREAKS = frozenset({"br", "p", "div", "li", "tr", "hr", "h1", "h2", "h3", "blockquote"})
_HIDDEN = frozenset({"script", "style", "blockquote"})
_LINK = re.compile(r"(?:https?://|www\.)\S+")
_REPLY_LINE = re.compile(r"^\s*RE:.*$", re.MULTILINE | re.IGNORECASE)
_OUT_OF_CHARACTER = re.compile(r"^\s*(?:\(\(|\[?\(?OOC\b)", re.IGNORECASE)
_MARKED_ADULT = re.compile(r"(?:^|[^a-z])(?:erp|nsfw)(?:[^a-z]|$)", re.IGNORECASE)

_Post = tuple[int, str, str]


def read(spec: Forum, folder: Path, seed: int) -> Outcomes:
    """Yield the threads of all `.csv` files, each file held in memory: a thread's posts may lie far apart."""
    for path in source_files(folder, ".csv"):
        threads: dict[str, list[_Post]] = {}
        for row in csv_rows(path, needed=_NEEDED):
            try:
                if row.problem is not None:
                    raise row.problem
                title, author, message = (repair_mojibake(text(row.value, name)).strip() for name in _NEEDED)
                if not title or not author:
                    raise RowError(f"{'thread_title' if not title else 'message_username'}: empty")
            except RowError as bad:
                yield refusal(row, bad)
                continue
            threads.setdefault(html.unescape(title), []).append((row.line, author, message))
        # A thread whose file is marked erotic counts as adult whatever its words.
        adult = _MARKED_ADULT.search(path.stem) is not None
        for title, posts in threads.items():
            yield from _thread(path.name, title, posts, seed, adult)


def _thread(file: str, title: str, posts: list[_Post], seed: int, adult: bool) -> Iterator[RawEpisode]:
    """Roles go to authors in turn: whoever follows another author answers them; names are not kept."""
    key = f"{title}\x1f{posts[0][2]}"
    # A quarter of the threads lets the model open, as in the original mixture (data reference, section 1.2).
    model_now = keyed_hash(seed, "forum_opening", key) % 4 == 0
    turns: list[Turn] = []
    last = None
    for _, author, message in posts:
        said = post_text(message)
        if not said:
            continue
        if last is not None and author != last:
            model_now = not model_now
        last = author
        turns.append(Turn("model" if model_now else "user", said))
    system = f'This is a role-play thread called "{title}". Write the next post.'
    # The gate also reads what is left out of the posts: ages are often stated out of character.
    context = "\n".join((title, *(message for _, _, message in posts)))
    yield RawEpisode(posts[0][0], file, key, system, tuple(turns) or (Turn("user", ""),), context, adult)


def post_text(message: str) -> str:
    """Return a post without markup, quotes of other posts, links, RE: lines and out-of-character paragraphs."""
    reader = _Reader()
    reader.feed(message)
    reader.close()
    plain = repair_text("".join(reader.parts)).replace("\xa0", " ")
    plain = _REPLY_LINE.sub("", _LINK.sub("", plain))
    paragraphs = (re.sub(r"[ \t]+", " ", line).strip() for line in plain.split("\n"))
    return "\n\n".join(p for p in paragraphs if p and not _OUT_OF_CHARACTER.match(p))


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
