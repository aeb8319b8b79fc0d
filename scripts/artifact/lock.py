"""`locks/<recipe>.lock`: which key gave which value, one artifact a line, in git."""

import re
from dataclasses import dataclass
from pathlib import Path

from scripts.artifact.digest import RECORD, ArtifactError
from scripts.artifact.places import artifact_folders
from scripts.artifact.record import read_record
from scripts.recipe.base import STAGES

HEADER = "# atelier lock 1: stage, name, key, value, bytes\n"
NO_NAME = "-"
# Names become paths and digests are compared: anything else in a lock is damage, or worse.
_LINE = re.compile(
    rf"({'|'.join(STAGES)})\t(-|[A-Za-z0-9][A-Za-z0-9._@-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?)"
    r"\t(-|[0-9a-f]{64})\t([0-9a-f]{64})\t([0-9]{1,18})"
)


@dataclass(frozen=True)
class Entry:
    """One artifact of a lock."""

    stage: str
    name: str
    """Empty for the report."""
    key: str
    value: str
    bytes: int


def entries_of(root: Path) -> list[Entry]:
    """Return the artifacts below `results/<recipe>` in order of the flow."""
    entries = []
    for folder in artifact_folders(root):
        if not (folder / RECORD).is_file():
            continue
        record = read_record(folder / RECORD)
        stage, _, name = str(record["name"]).partition("/")
        entries.append(Entry(stage, name, record["key"], record["value"], int(record["bytes"])))
    return sorted(entries, key=lambda e: (STAGES.index(e.stage), e.name))


def format_lock(entries: list[Entry]) -> str:
    """Return the canonical text of a lock."""
    rows = (f"{e.stage}\t{e.name or NO_NAME}\t{e.key}\t{e.value}\t{e.bytes}\n" for e in entries)
    return HEADER + "".join(rows)


def parse_lock(text: str, label: str) -> list[Entry]:
    """Return the entries of a lock's text.

    Raises:
        ArtifactError: a line that is not five fields, or a format that this version doesn't know.
    """
    if not re.match(r"# atelier lock 1\b", text):
        raise ArtifactError(f"{label}: not a lock of format 1; its first line is {text[:60]!r}")
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        fields = _LINE.fullmatch(line)
        if fields is None:
            raise ArtifactError(f"{label}:{number}: needs stage, name, key, value, bytes; found {line[:80]!r}")
        stage, name, key, value, size = fields.groups()
        entries.append(Entry(stage, "" if name == NO_NAME else name, key, value, int(size)))
    return entries


def read_lock(path: Path) -> list[Entry]:
    """Return the entries of a lock file; see `parse_lock`."""
    try:
        return parse_lock(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path}: not a lock: {error}; take it from git again") from None
