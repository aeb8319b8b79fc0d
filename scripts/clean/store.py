"""Kept episodes: on disk while rows are read, then sorted by id into parquet."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TextIO

from scripts.artifact.stage import StageError
from scripts.clean.episode import Turn

GENERAL, ADULT = "general", "adult"

# `json.dumps` makes an encoder each time it isn't asked for ASCII.
_TO_JSON = json.JSONEncoder(ensure_ascii=False).encode
# Ids are uniform, so a million episodes of 2 kB give 64 files of 30 MB, each sorted in memory.
_SPILL_FILES = 64
# A row group of 1,024 episodes of at most 100 kB stays in memory; writers and readers need no more than one.
ROW_GROUP_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Episode:
    """One kept episode and where it came from."""

    id: str
    source: str
    label: str
    """`general` or `adult`."""
    system: str
    turns: tuple[Turn, ...]
    line: int
    file: str
    digest: str
    """Of system text and turns, 32 hex digits."""

    def text(self) -> str:
        """Return all that is said, system text first."""
        return "\n".join((self.system, *(turn.text for turn in self.turns)))


class Spill:
    """Episodes in files by the first bits of their id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[TextIO] = []

    def __enter__(self) -> "Spill":
        self._folder.mkdir(parents=True, exist_ok=True)
        # Begins empty: what a killed attempt left behind is of no use, since rows are read again from the first.
        self._files = [self._path(i).open("w+", encoding="utf-8", newline="\n") for i in range(_SPILL_FILES)]
        return self

    def __exit__(self, *unused: object) -> None:
        for index, file in enumerate(self._files):
            file.close()
            self._path(index).unlink(missing_ok=True)

    def _path(self, index: int) -> Path:
        return self._folder / f"spill-{index:02}.jsonl"

    def add(self, episode: Episode) -> None:
        """Keep an episode."""
        index = int(episode.id[-16:-14], 16) * _SPILL_FILES // 256
        place = (episode.line, episode.file, episode.digest)
        fields = [episode.id, episode.source, episode.label, episode.system, episode.turns, *place]
        self._files[index].write(_TO_JSON(fields) + "\n")

    def by_id(self) -> Iterator[Episode]:
        """Yield all episodes sorted by id.

        Raises:
            StageError: an id twice.
        """
        last = ""
        for file in self._files:
            file.seek(0)
            rows = sorted((json.loads(line) for line in file), key=lambda fields: str(fields[0]))
            for name, source, label, system, turns, *place in rows:
                if name <= last:
                    raise StageError(f"{name}: id given twice; please report this as a fault of the clean stage")
                last = name
                yield Episode(name, source, label, system, tuple(map(Turn._make, turns)), *place)


def write_episodes(path: Path, episodes: Iterable[Episode], places: bool = False) -> None:
    """Write `episodes.parquet` in the given order: zstd, row groups of 1,024, the same bytes every time.

    Args:
        path: the file.
        episodes: by id.
        places: also write `file` and `line`, where each episode stood.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = pa.struct([("role", pa.string()), ("text", pa.string())])
    fields = [(name, pa.string()) for name in ("id", "source", "label", "system")]
    place = [("file", pa.string()), ("line", pa.int64())] if places else []
    schema = pa.schema([*fields, ("turns", pa.list_(turn)), *place])
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=3, version="2.6") as writer:
        for rows in _groups(episodes):
            columns = {name: [getattr(row, name) for row in rows] for name, _ in (*fields, *place)}
            # Flat columns: pyarrow takes longer to read a dict for each turn than to write the file.
            turns = [row.turns for row in rows]
            parts = [
                pa.array([part[i] for said in turns for part in said], pa.string()) for i in range(len(Turn._fields))
            ]
            offsets = pa.array(accumulate(map(len, turns), initial=0), pa.int32())
            said = pa.StructArray.from_arrays(parts, fields=list(turn))
            columns["turns"] = pa.ListArray.from_arrays(offsets, said, type=pa.list_(turn))
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROW_GROUP_ROWS)


def _groups(episodes: Iterable[Episode]) -> Iterator[list[Episode]]:
    rows: list[Episode] = []
    for episode in episodes:
        rows.append(episode)
        if len(rows) == ROW_GROUP_ROWS:
            yield rows
            rows = []
    if rows:
        yield rows
