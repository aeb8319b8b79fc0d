"""SHA-256 of files and folders, in the format that `sha256sum -c` reads."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUMS = "SHA256SUMS"
RECORD = "artifact.json"
FACTS = "provenance.json"
OWN_FILES = frozenset({SUMS, RECORD, FACTS})

_BLOCK = 1 << 20
_LINE = re.compile(r"^([0-9a-f]{64})  (.+)$")
_LINES = re.compile(r"^([0-9a-f]{64})  (.+)$", re.M)


class ArtifactError(Exception):
    """An artifact that is missing, damaged or not what it claims; the message says how to mend it."""


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, lower-case hex (about 1.5 GB/s a core with SHA instructions)."""
    with path.open("rb", buffering=0) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of `content`, lower-case hex."""
    return hashlib.sha256(content).hexdigest()


def hash_files(root: Path, names: Iterable[str], threads: int = 1) -> dict[str, str]:
    """Return {relative path: SHA-256}; hashlib releases the GIL, so threads scale over files."""
    names = sorted(names)
    if threads <= 1 or len(names) <= 1:
        return {name: sha256_file(root / name) for name in names}
    # Largest first, so that no thread is left alone with the largest file at the end.
    order = sorted(names, key=lambda name: -(root / name).stat().st_size)
    with ThreadPoolExecutor(threads) as pool:
        digests = dict(zip(order, pool.map(lambda name: sha256_file(root / name), order), strict=True))
    return {name: digests[name] for name in names}


def payload_files(root: Path) -> list[str]:
    """Return the relative paths of an artifact's payload, sorted by code point.

    Raises:
        ArtifactError: a link, device or socket, or a name that no line of SHA256SUMS can hold.
    """
    found = []
    for folder, folders, files in os.walk(root):
        for name in sorted([*files, *(f for f in folders if (Path(folder) / f).is_symlink())]):
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            if relative in OWN_FILES:
                continue
            if path.is_symlink() or not path.is_file():
                raise ArtifactError(f"{path}: not a regular file; an artifact holds only regular files")
            if "\n" in relative or "\\" in relative or "\r" in relative:
                raise ArtifactError(f"{path!s}: this file name can't be written to {SUMS}")
            found.append(relative)
    return sorted(found)


def format_sums(digests: Mapping[str, str]) -> str:
    """Return the text of SHA256SUMS: sorted, two spaces, LF."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))


def parse_sums(text: str, path: Path) -> dict[str, str]:
    """Return {relative path: SHA-256} of a SHA256SUMS file.

    Raises:
        ArtifactError: a malformed line, an absolute or climbing path, or a path given twice.
    """
    lines = text.removesuffix("\n").split("\n") if text else []  # not splitlines: a name may hold U+2028
    found = _LINES.findall(text)
    digests = {name: digest for digest, name in found}
    # A thousand lines at once take a third of the time; only where something looks odd, each is looked at.
    odd = "  /" in text or ".." in text or not OWN_FILES.isdisjoint(digests)
    if not odd and len(found) == len(lines) == len(digests):
        return digests
    digests = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.match(line)
        if match is None:
            raise ArtifactError(f"{path}:{number}: not a line of sha256sum: {line[:80]!r}; rebuild the artifact")
        name = match[2]
        if name.startswith("/") or ".." in name.split("/") or name in digests or name in OWN_FILES:
            raise ArtifactError(f"{path}:{number}: {name!r} is not allowed here; rebuild the artifact")
        digests[name] = match[1]
    return digests


def read_sums(folder: Path) -> dict[str, str]:
    """Return the digests that an artifact claims.

    Raises:
        ArtifactError: there is no readable SHA256SUMS.
    """
    path = folder / SUMS
    try:
        return parse_sums(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); rebuild the artifact") from None


def value_of(folder: Path) -> str:
    """Return an artifact's VALUE: the SHA-256 of its SHA256SUMS."""
    return sha256_file(folder / SUMS)
