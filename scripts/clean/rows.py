"""Reading the raw files of a download row by row: every row comes out, as a value or as a refusal."""

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scripts.artifact.digest import payload_files
from scripts.artifact.stage import StageError
from scripts.clean.episode import ENCODING, Outcome, Outcomes, RawEpisode, Refused, RowError
from scripts.clean.text import fault_in, repair_text, undecoded

# Rows have 2 to 15 kB on average (OpenOrca, PIPPA): a line of 32 MB is none, and must not fill the memory.
MAX_ROW_BYTES = 32 << 20
_CHUNK = 1 << 20
# In a line that is no JSON, the gate must not read "\\nword" as "nword".
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)")
_DECODER = json.JSONDecoder()


class Row(NamedTuple):
    """One row of a file: its place, its raw text for samples and the gate, and its value or what is wrong with it."""

    file: str
    line: int
    text: str
    problem: RowError | None
    value: Any


def source_files(folder: Path, *suffixes: str) -> list[Path]:
    """Return the files of a download that end in one of `suffixes`, sorted by name.

    Raises:
        StageError: there is none.
    """
    names = payload_files(folder)
    found = [folder / name for name in names if name.lower().endswith(suffixes)]
    if not found:
        plain = any(name.lower().endswith((".txt", ".md")) for name in names)
        hint = "; plain text comes as a CSV of stories: docs/data.md" if plain else ""
        raise StageError(
            f"{folder}: no {' or '.join(suffixes)} file among {', '.join(names) or 'nothing'}; name the right files "
            f"under the source's fetch.files, or set read.adapter to what they are{hint}"
        )
    return found


def parse_rows(rows: Iterator[Row], parse: Callable[[Row], Iterator[RawEpisode]]) -> Outcomes:
    """Yield the episodes of each row, or one refusal for what could not be parsed of it."""
    for row in rows:
        if row.problem is not None:
            yield refusal(row, row.problem)
            continue
        try:
            yield from parse(row)
        except RowError as bad:
            yield refusal(row, bad)


def refusal(row: Row, bad: RowError) -> Outcome:
    """Return the refusal of one row."""
    text = "\n".join(_strings(row.value)) if row.value is not None else _ESCAPED.sub(_unescaped, row.text)
    return Refused(row.line, row.file, bad.reason, repair_text(bad.detail), repair_text(text), bad.key)


def _strings(value: Any) -> Iterator[str]:
    """Yield every text inside a JSON value, without recursion."""
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, str):
            yield current
        elif isinstance(current, dict):
            waiting.extend(reversed(current.values()))
        elif isinstance(current, list):
            waiting.extend(reversed(current))


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else " "


def json_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of JSON lines, of one JSON array, or of a file that is one JSON object.

    Lines are counted from 1; so are the items of an array, which is read in pieces, never whole.

    Raises:
        StageError: an array that is not valid JSON: nothing behind the fault can be read.
    """
    with path.open("rb") as handle:
        start = handle.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if start == b"[":
        yield from _array_items(path)
        return
    single = _single_object(path) if start == b"{" else None
    if single is not None:
        yield single
        return
    yield from _lines(path)


def _lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as handle:
        number = 0
        while raw := handle.readline(MAX_ROW_BYTES + 1):
            number += 1
            if len(raw) > MAX_ROW_BYTES:
                while raw and not raw.endswith(b"\n"):
                    raw = handle.readline(_CHUNK)
                bad = RowError(f"longer than {MAX_ROW_BYTES:,} bytes")
                yield Row(path.name, number, "", bad, None)
                continue
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if raw.strip():
                yield _row(path, number, raw.decode("utf-8", "surrogateescape").strip())


def _row(path: Path, number: int, text: str) -> Row:
    if undecoded(text):
        return Row(path.name, number, text, RowError("not valid UTF-8", ENCODING), None)
    try:
        return Row(path.name, number, text, None, json.loads(text))
    except (ValueError, RecursionError) as error:
        return Row(path.name, number, text, RowError(f"not valid JSON: {_short(error)}"), None)


def _short(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def _single_object(path: Path) -> Row | None:
    """Return the only row of a pretty-printed object, or None where the first line is a row of its own."""
    if path.stat().st_size > MAX_ROW_BYTES:
        return None
    first = next(_lines(path))
    if first.problem is None:
        return None
    whole = _row(path, 1, path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape").strip())
    return whole if whole.problem is None else None


def _array_items(path: Path) -> Iterator[Row]:
    """Yield the items of a JSON array, holding one item and a chunk in memory."""
    with _Pieces(path) as pieces:
        pieces.skip("[")
        number = 0
        while number > 0 or pieces.peek() != "]":
            number += 1
            value, raw = pieces.item(number)
            bad = RowError("not valid UTF-8", ENCODING) if undecoded(raw) else None
            yield Row(path.name, number, raw, bad, value)
            if pieces.peek() != ",":
                break
            pieces.skip(",")
        pieces.skip("]")
        if pieces.peek():
            raise pieces.broken(f"text after the array's end, behind item {number}")


class _Pieces:
    """A text file read in pieces that grow while one item needs more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = path.open("rb")
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._text = ""
        self._at = 0

    def __enter__(self) -> "_Pieces":
        return self

    def __exit__(self, *unused: object) -> None:
        self._handle.close()

    def _more(self) -> bool:
        """Append a piece as long as what is still unread, so that a huge item costs O(n), not O(n^2)."""
        raw = self._handle.read(max(_CHUNK, len(self._text) - self._at))
        piece = self._decoder.decode(raw, final=not raw)
        self._text, self._at = self._text[self._at :] + piece, 0
        return bool(raw) or bool(piece)

    def broken(self, problem: str) -> StageError:
        """Return the error of a file that cannot be read to its end."""
        return StageError(
            f"{self._path}: not a valid JSON array: {problem}; fetch the file again, or give one object a line (.jsonl)"
        )

    def peek(self) -> str:
        """Return the next character that is not white space; empty at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def skip(self, mark: str) -> None:
        """Go behind `mark`, which must come next."""
        found = self.peek()
        if found != mark:
            raise self.broken(f"expected {mark!r}, found {found or 'the end of the file'!r}")
        self._at += 1

    def item(self, number: int) -> tuple[Any, str]:
        """Return the next value with its text."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if isinstance(error, RecursionError) or not self._more():
                    raise self.broken(f"item {number}: {_short(error)}") from None
                continue
            # A number may go on in the next piece: the value is whole once something follows it.
            if end < len(self._text) or not self._more():
                raw, self._at = self._text[self._at : end], end
                return value, raw


def table(value: object, what: str = "row") -> Mapping[str, Any]:
    """Return `value` if it is a JSON object.

    Raises:
        RowError: it is not.
    """
    if not isinstance(value, dict):
        raise RowError(f"{what}: found {kind(value)}, needs an object")
    return value


def items(row: Mapping[str, Any], key: str) -> list[Any]:
    """Return a list field.

    Raises:
        RowError: missing or not a list.
    """
    value = row.get(key)
    if not isinstance(value, list):
        raise RowError(f"{key}: found {kind(value)}, needs a list")
    return value


def text(row: Mapping[str, Any], key: str, optional: bool = False) -> str:
    """Return a text field, repaired; an optional one may be missing or null, which gives an empty text.

    Raises:
        RowError: not a text, missing although needed, or with a NUL or a lone surrogate: what it should be is lost.
    """
    value = row.get(key)
    if isinstance(value, str):
        fault = fault_in(value)
        if fault:
            raise RowError(f"{key}: holds {fault}", ENCODING)
        return repair_text(value)
    if optional and value is None:
        return ""
    raise RowError(f"{key}: found {kind(value)}, needs a text")


def kind(value: object) -> str:
    """Return a JSON type's name as people say it."""
    if value is None:
        return "nothing"
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)
