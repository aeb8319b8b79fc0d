"""Stories CSV: story_title, story_tags, story_summary, story; one story a row, told in pieces."""

import re
from collections.abc import Iterator
from pathlib import Path

from scripts.clean.csvfile import csv_rows
from scripts.clean.episode import Outcomes, RawEpisode, RowError, Turn
from scripts.clean.markup import looks_like_html, out_of_character_title, visible_text
from scripts.clean.rows import Row, parse_rows, source_files, text
from scripts.clean.text import repair_mojibake
from scripts.clean.wording import Wording
from scripts.recipe.clean import Stories

GO_ON = ("Go on.", "What happens next?", "Continue the story.", "Please tell me more.", "And then?")
_PARAGRAPH = re.compile(r"\n\s*\n|\n")


def read(spec: Stories, folder: Path, wording: Wording) -> Outcomes:
    """Yield the stories of all `.csv` files; the last piece is kept, however short."""
    for path in source_files(folder, ".csv"):
        rows = csv_rows(path, needed=("story_title", "story"))
        yield from parse_rows(rows, lambda row: _story(row, spec, wording))


def _story(row: Row, spec: Stories, wording: Wording) -> Iterator[RawEpisode]:
    title, tags, summary, story = (
        repair_mojibake(text(row.value, name, optional=True)).strip()
        for name in ("story_title", "story_tags", "story_summary", "story")
    )
    key = f"{title}\x1f{story}"
    if out_of_character_title(title, loose=wording.compat.story_tail):
        raise RowError("the title says so", "out_of_character", key)
    # The gate also reads what markup hides, and the last piece where a defect of the original loses it.
    html = looks_like_html(story)
    context = story if html or wording.compat.story_tail else ""
    if html:
        story = visible_text(story).replace("\xa0", " ").strip()
    ask = " ".join(
        part
        for part in (
            f'Write a story called "{title}".' if title else "Write a story.",
            f"Tags: {tags.rstrip('.')}." if tags else "",
            f"Summary: {summary}" if summary else "",
        )
        if part
    )
    pieces = story_pieces(story, spec.chunk_words)
    if wording.compat.story_tail and pieces and len(pieces[-1].split()) < spec.chunk_words:
        pieces.pop()
    turns = [Turn("user", ask)]
    for index, piece in enumerate(pieces):
        if index:
            turns.append(Turn("user", wording.choose(GO_ON, "stories_go_on", key, index)))
        turns.append(Turn("model", piece))
    yield RawEpisode(row.line, row.file, key, "", tuple(turns), context)


def story_pieces(story: str, words: int) -> list[str]:
    """Cut a story at the ends of paragraphs, each piece as soon as it has `words` words; nothing is lost."""
    pieces: list[str] = []
    current: list[str] = []
    count = 0
    for paragraph in _PARAGRAPH.split(story):
        if paragraph.strip():
            current.append(paragraph.strip())
            count += len(paragraph.split())
        if count >= words:
            pieces.append("\n\n".join(current))
            current, count = [], 0
    return [*pieces, "\n\n".join(current)] if current else pieces
