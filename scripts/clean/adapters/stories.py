"""Stories CSV: story_title, story_tags, story_summary, story; one story a row, told in pieces."""

import re
from collections.abc import Iterator
from pathlib import Path

from scripts.clean.csvfile import csv_rows
from scripts.clean.episode import Outcomes, RawEpisode, Turn
from scripts.clean.rows import Row, parse_rows, source_files, text
from scripts.clean.text import repair_mojibake
from scripts.recipe.base import keyed_hash
from scripts.recipe.clean import Stories

GO_ON = ("Go on.", "What happens next?", "Continue the story.", "Please tell me more.", "And then?")
_PARAGRAPH = re.compile(r"\n\s*\n|\n")


def read(spec: Stories, folder: Path, seed: int) -> Outcomes:
    """Yield the stories of all `.csv` files; the last piece is kept, however short."""
    for path in source_files(folder, ".csv"):
        rows = csv_rows(path, needed=("story_title", "story"))
        yield from parse_rows(rows, lambda row: _story(row, spec, seed))


def _story(row: Row, spec: Stories, seed: int) -> Iterator[RawEpisode]:
    title, tags, summary, story = (
        repair_mojibake(text(row.value, name, optional=True)).strip()
        for name in ("story_title", "story_tags", "story_summary", "story")
    )
    key = f"{title}\x1f{story}"
    ask = " ".join(
        part
        for part in (
            f'Write a story called "{title}".' if title else "Write a story.",
            f"Tags: {tags.rstrip('.')}." if tags else "",
            f"Summary: {summary}" if summary else "",
        )
        if part
    )
    turns = [Turn("user", ask)]
    for index, piece in enumerate(story_pieces(story, spec.chunk_words)):
        if index:
            turns.append(Turn("user", GO_ON[keyed_hash(seed, "stories_go_on", key, index) % len(GO_ON)]))
        turns.append(Turn("model", piece))
    yield RawEpisode(row.line, row.file, key, "", tuple(turns))


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
