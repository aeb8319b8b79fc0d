"""Role-play forum CSV: thread_title, message_username, message (HTML); one thread is one episode."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

from scripts.clean.csvfile import csv_rows
from scripts.clean.episode import Outcome, Outcomes, RawEpisode, Refused, RowError, Turn
from scripts.clean.markup import in_character, out_of_character_title, visible_text, without_bbcode
from scripts.clean.rows import refusal, source_files, text
from scripts.clean.text import repair_mojibake, repair_text
from scripts.clean.wording import Wording
from scripts.recipe.clean import Forum

_NEEDED = ("thread_title", "message_username", "message")
_LINK = re.compile(r"(?:https?://|www\.)\S+")
_REPLY_LINE = re.compile(r"^\s*RE:.*$", re.MULTILINE | re.IGNORECASE)
_MARKED_ADULT = re.compile(r"(?:^|[^a-z])(?:erp|nsfw)(?:[^a-z]|$)", re.IGNORECASE)

_Post = tuple[int, str, str]


def read(spec: Forum, folder: Path, wording: Wording) -> Outcomes:
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
            yield from _thread(path.name, title, posts, wording, adult)


def _thread(file: str, title: str, posts: list[_Post], wording: Wording, adult: bool) -> Iterator[Outcome]:
    """Roles go to authors in turn: whoever follows another author answers them; names are not kept."""
    key = f"{title}\x1f{posts[0][2]}"
    # The gate also reads what is left out of the posts: ages are often stated out of character.
    context = "\n".join((title, *(message for _, _, message in posts)))
    if out_of_character_title(title, loose=wording.compat.story_tail):
        yield Refused(posts[0][0], file, "out_of_character", "the title says so", context, key)
        return
    # A quarter of the threads lets the model open, as in the original mixture (data reference, section 1.2).
    model_now = wording.pick(4, "forum_opening", key) == 0
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
    yield RawEpisode(posts[0][0], file, key, system, tuple(turns) or (Turn("user", ""),), context, adult)


def post_text(message: str) -> str:
    """Return a post without markup, quotes of other posts, links, RE: lines and out-of-character asides."""
    plain = without_bbcode(repair_text(visible_text(message)).replace("\xa0", " "))
    plain = _REPLY_LINE.sub("", _LINK.sub("", plain))
    return "\n\n".join(in_character([re.sub(r"[ \t]+", " ", line).strip() for line in plain.split("\n")]))
