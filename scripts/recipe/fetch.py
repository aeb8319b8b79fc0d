"""Where bytes come from: a hub repository, a web folder or a local folder, pinned by digest."""

import os
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from scripts.recipe.base import Name, Sha256, Spec, Strict

RelativePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=200)
]
HUB = re.compile(r"(?:(dataset|model):)?([A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+)(?:@([0-9a-f]{40}))?")
_HUB_DATASET = re.compile(r"https?://huggingface\.co/datasets/([A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+)(?:/|$)")
# Names that every artifact uses for itself.
_RESERVED = frozenset({"SHA256SUMS", "artifact.json", "provenance.json"})
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


class Pin(Strict):
    """Digest and length of one file."""

    sha256: Sha256
    """SHA-256 of the file's bytes, lower-case hex."""
    bytes: Annotated[int, Field(ge=0)] | None = None
    """Length in bytes; lets a short file be named before it is hashed."""


class Fetch(Strict):
    """A set of files at one pinned place; exactly one of `hub`, `url`, `folder`."""

    hub: str | None = None
    """`[dataset:|model:]owner/name@<40 hex>`: a Hugging Face repository at a fixed commit."""
    url: str | None = None
    """Base address; each file lies at `url/path`."""
    folder: str | None = None
    """Local folder (relative to the repository, `$VARIABLES` allowed); each file lies at `folder/path`."""
    files: dict[RelativePath, Pin | None]
    """Files to take, each with its pin or nothing. A pin is required unless `hub` fixes the commit."""
    gated: str | None = None
    """Page where access must be requested, shown when the server refuses."""
    unconfirmed: str | None = None
    """Why neither commit nor digests are known yet. The recipe then loads and plans, but the download refuses to run
    until the place is pinned."""

    @property
    def pinned(self) -> bool:
        """Whether the bytes of every file are fixed."""
        return bool(self.hub and "@" in self.hub) or None not in self.files.values()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        places = [p for p in ("hub", "url", "folder") if getattr(self, p) is not None]
        if len(places) != 1:
            raise ValueError(f"needs exactly one of hub, url, folder; found {', '.join(places) or 'none'}")
        _check_hub(self.hub, self.unconfirmed is not None)
        _check_url(self.url)
        if not self.files:
            raise ValueError("files is empty; name at least one")
        unpinned = sorted(name for name, pin in self.files.items() if pin is None)
        if unpinned and self.hub is None and self.unconfirmed is None:
            raise ValueError(
                f"file {unpinned[0]!r} needs a sha256: only a hub commit pins files without one; "
                "`python -m scripts.recipe pin FOLDER FILE...` prints it"
            )
        _check_files(self.files)
        return self

    @property
    def place(self) -> str:
        """Where the files are from, as a page may name it: a local folder's path stays private."""
        return self.hub or self.url or "a local folder"

    @property
    def hub_dataset(self) -> str:
        """`owner/name` of the hub's data set that the files are from, also if a web address names it; else empty."""
        if self.hub:
            kind, name, _ = self.hub_parts()
            return name if kind == "dataset" else ""
        found = _HUB_DATASET.match(self.url or "")
        return found[1] if found else ""

    def hub_parts(self) -> tuple[str, str, str]:
        """Return (repository type, owner/name, commit) of a hub fetch; the commit is empty while `unconfirmed`."""
        match = HUB.fullmatch(self.hub or "")
        if match is None:
            raise ValueError("not a hub fetch")
        return match[1] or "model", match[2], match[3] or ""

    def folder_path(self) -> str:
        """Return the local folder with `~` and `$VARIABLES` expanded.

        Raises:
            ValueError: a variable that is not set.
        """
        folder = self.folder or ""
        unset = [name for name in _VARIABLE.findall(folder) if not os.environ.get(name)]
        if unset:
            raise ValueError(f"folder {folder!r}: the variable {unset[0]} is not set; set it to a folder")
        return str(Path(os.path.expandvars(folder)).expanduser())


def _check_hub(hub: str | None, unconfirmed: bool) -> None:
    if hub is None:
        return
    match = HUB.fullmatch(hub)
    if match is None or (match[3] is None and not unconfirmed):
        raise ValueError(f"hub {hub!r} is not [dataset:|model:]owner/name@<40 lower-case hex digits of a commit>")


def _check_url(url: str | None) -> None:
    if url is None:
        return
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
        raise ValueError(f"url {url!r} is not https://host/folder without spaces, `?` and `#`")
    if "@" in url.split("/")[2]:
        raise ValueError("url holds a user name or password; secrets never belong into a recipe")


def _check_files(files: dict[str, Pin | None]) -> None:
    for name in files:
        if name in _RESERVED:
            raise ValueError(f"file {name!r} has the name of one of the artifact's own files, so it can't be kept")
        parents = {"/".join(name.split("/")[:depth]) for depth in range(1, name.count("/") + 1)}
        for parent in sorted(parents & set(files)):
            raise ValueError(f"file {parent!r} can't be a file and the folder of {name!r}")


class DownloadSpec(Spec):
    """One download: the artifact holds exactly these files."""

    name: Name
    fetch: Fetch

    def identity(self) -> dict[str, object]:
        """Pinned bytes are the same wherever they lie; only an unpinned hub file needs its commit."""
        files = {path: pin.sha256 if pin else None for path, pin in self.fetch.files.items()}
        place = self.fetch.hub if None in files.values() else None
        return {"files": files, "hub": place}
