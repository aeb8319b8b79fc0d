"""Club Floyd: transcripts of text games played together, `{name, data: [{action, response}], ...}`.

Other fields that are read: author, genres, description, transcript_id, average_rating, discretion_advised.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.clean.episode import Outcomes, RawEpisode, RowError, Turn
from scripts.clean.rows import Row, items, json_rows, parse_rows, source_files, table, text
from scripts.clean.wording import Wording
from scripts.recipe.clean import Floyd

_GAME_START = "%"


def read(spec: Floyd, folder: Path, wording: Wording) -> Outcomes:
    """Yield the transcripts of all `.json` and `.jsonl` files; those rated below `min_rating` are refused."""
    for path in source_files(folder, ".json", ".jsonl"):
        yield from parse_rows(json_rows(path), lambda row: _transcript(row, spec))


def _transcript(row: Row, spec: Floyd) -> Iterator[RawEpisode]:
    value = table(row.value)
    name = text(value, "name").strip()
    turns: list[Turn] = []
    for index, item in enumerate(items(value, "data")):
        step = table(item, f"data[{index}]")
        action, response = text(step, "action").strip(), text(step, "response")
        # "%" stands where no one typed: the game has just begun and tells its opening.
        if action != _GAME_START:
            turns.append(Turn("user", action.removeprefix(">").strip()))
        turns.append(Turn("model", response))
    native = value.get("transcript_id")
    content = "\x1f".join((name, *(turn.text for turn in turns)))
    key = str(native) if isinstance(native, str | int) and native != "" else content
    rating = value.get("average_rating")
    if isinstance(rating, int | float) and not isinstance(rating, bool) and rating < spec.min_rating:
        raise RowError(f"average_rating {rating:g} is below {spec.min_rating:g}", "low_rating", key)
    context = "\n".join(str(value.get(field) or "") for field in ("genres", "tags", "description"))
    adult = value.get("discretion_advised") is True
    yield RawEpisode(row.line, row.file, key, _system(value, name), tuple(turns), context, adult)


def _system(value: Mapping[str, Any], name: str) -> str:
    author = value.get("author")
    by = f" by {author.strip()}" if isinstance(author, str) and author.strip() else ""
    return f'You are the text game "{name or "Untitled"}"{by}. The user types commands; answer as the game does.'
