"""A model on the hub as its headers tell it: config, index and safetensors headers, never a byte of weights."""

import io
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.artifact.stage import StageError
from scripts.artifact.tensors import MAX_HEADER_BYTES, parse_header, weight_map_files
from scripts.merge.models import ModelFolder, assemble, parse_json
from scripts.merge.shards import INDEX
from scripts.recipe.fetch import Fetch

if TYPE_CHECKING:
    import httpx2

_TOKEN = "HF_TOKEN"  # noqa: S105 the name of the variable, not its value
_JSON_BYTES = 20_000_000
_TIMEOUT_S = 30.0


class _MissingError(StageError):
    """The repository has no such file."""


@dataclass
class _Repository:
    """One repository at one revision; the first answer fixes the commit of a revision that was only a branch."""

    client: "httpx2.Client"
    name: str
    revision: str

    def get(self, path: str, start: int = 0, stop: int | None = None) -> tuple[bytes, int]:
        """Return bytes [start, stop) of a file and the file's length; without `stop`, a small file as a whole.

        Raises:
            StageError: refused, unreachable, or a server that sends something else than was asked for.
        """
        import httpx2
        from huggingface_hub import hf_hub_url
        from huggingface_hub.errors import OfflineModeIsEnabled

        where = f"{path}: {self.name} at {self.revision}"
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
        url = hf_hub_url(self.name, path, revision=self.revision, endpoint=endpoint)
        token = os.environ.get(_TOKEN, "").strip()
        headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {token}"} if token else {})}
        if stop is not None:
            headers["Range"] = f"bytes={start}-{stop - 1}"
        limit = _JSON_BYTES if stop is None else stop - start
        try:
            with self.client.stream("GET", url, headers=headers, follow_redirects=True, timeout=_TIMEOUT_S) as response:
                self._check(response, where, partial=stop is not None)
                # Whatever the server has in store, reading ends here: weights are never fetched by mistake.
                body = _at_most(response, limit)
        except OfflineModeIsEnabled:
            raise StageError("offline mode is on: unset HF_HUB_OFFLINE, or leave --hub out") from None
        except httpx2.HTTPError as error:
            raise StageError(f"{where}: can't be reached ({type(error).__name__}: {error})") from None
        if len(body) > limit or (stop is not None and len(body) < limit):
            raise StageError(f"{where}: {len(body):,} bytes came, {limit:,} were expected; try again")
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        return body, int(total) if total.isdecimal() else len(body)

    def _check(self, response: "httpx2.Response", where: str, partial: bool) -> None:
        status = response.status_code
        if status == 404 and response.headers.get("X-Error-Code", "EntryNotFound") == "EntryNotFound":
            raise _MissingError(f"{where}: there is no such file")
        if status in {401, 403, 404}:
            have = f"{_TOKEN} is set, but has no access" if os.environ.get(_TOKEN) else f"{_TOKEN} is not set"
            code = response.headers.get("X-Error-Code", "")
            raise StageError(f"{where}: refused (status {status} {code}); {have}. Correct the name, or ask for access")
        if partial and status == 200:
            raise StageError(f"{where}: the server ignores byte ranges; download the model, then show reads the files")
        if status != (206 if partial else 200):
            raise StageError(f"{where}: status {status}; wait and try again")
        first = next((r for r in [*response.history, response] if "X-Repo-Commit" in r.headers), None)
        if first is not None:
            self.revision = first.headers["X-Repo-Commit"]


def _at_most(response: "httpx2.Response", limit: int) -> bytes:
    body = bytearray()
    for block in response.iter_bytes():
        body += block
        if len(body) > limit:
            break
    return bytes(body)


def open_remote(name: str, fetch: Fetch) -> tuple[ModelFolder, str]:
    """Return a hub model's headers, and words that say where they are from.

    A model without a commit is read at `main`; the words then name the commit that was found there.

    Raises:
        StageError: no access, missing files, unreadable JSON.
        ArtifactError: an invalid header or index (rule R5).
    """
    from huggingface_hub import get_session

    _, repository, commit = fetch.hub_parts()
    at = _Repository(get_session(), repository, commit or "main")
    label = Path(repository)
    config = parse_json(at.get("config.json")[0], label / "config.json")
    weight_map: dict[str, Any] | None = None
    files = ["model.safetensors"]
    try:
        index = parse_json(at.get(INDEX)[0], label / INDEX)
    except _MissingError:
        pass
    else:
        files = weight_map_files(json.dumps(index), label / INDEX)
        weight_map = index["weight_map"]
    headers = [(label / file, _header(at, file, label)) for file in files]
    words = f"{repository}@{at.revision}" + ("" if commit else " (main of today: pin this commit or another)")
    return assemble(name, label, config, headers, weight_map), words


def _header(at: _Repository, file: str, label: Path) -> list[Any]:
    """Fetch exactly the 8 bytes of the length and the header that they announce."""
    prefix, size = at.get(file, 0, 8)
    (length,) = struct.unpack("<Q", prefix)
    text = b""
    if 0 < length <= min(MAX_HEADER_BYTES, size - 8):  # otherwise parse_header says what is wrong
        text, _ = at.get(file, 8, 8 + length)
    return parse_header(io.BytesIO(prefix + text), size, str(label / file))
