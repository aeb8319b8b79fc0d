"""A web server on loopback that answers like a model hub and can misbehave on purpose."""

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_CANARY"


@dataclass
class Mood:
    """How the server treats the next requests for file bytes; counters go down as they are used."""

    break_after: int | None = None
    """Send only so many bytes of each answer, then drop the connection ..."""
    breaks: int = 0
    """... this many times."""
    busy: list[int] = field(default_factory=list)
    """Status codes of the next answers."""
    busy_look_ups: list[int] = field(default_factory=list)
    """The same for the questions about a file, before its bytes."""
    retry_after: str | None = None
    corrupt_at: int | None = None
    """Flip one bit of this byte."""
    corruptions: int = 0
    ranges: bool = True
    whole: bool = True
    """Send Content-Length; without it a short answer looks complete."""
    shorten: int = 0
    """Serve this many bytes less than the file has, and say so."""
    token: str | None = None
    """Refuse requests without this token."""
    storage: str | None = None
    """Redirect the bytes of large files to this address, as the hub does."""
    commit: str = COMMIT
    etags: bool = True


class HubServer:
    """`with HubServer({"owner/name": {"file": b"..."}}) as server: ... server.address`."""

    def __init__(self, repositories: dict[str, dict[str, bytes]], large: frozenset[str] = frozenset()) -> None:
        self.repositories, self.large = repositories, large
        self.mood = Mood()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """(method, path, headers) of all requests so far."""
        self.sent: list[tuple[str, int]] = []
        """(file, bytes of its content) of all answers so far."""
        server = self

        class Handler(_Handler):
            hub = server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def ranges_asked(self) -> list[str]:
        """Return the Range headers of all GET requests, in order; empty text where there was none."""
        return [headers.get("range", "") for method, _, headers in self.requests if method == "GET"]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name is http.server's
        """Stay silent."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        mood = self.hub.mood
        self.hub.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        if mood.token is not None and self.headers.get("Authorization") != f"Bearer {mood.token}":
            known = self.headers.get("Authorization") is not None
            return self._refuse(403 if known else 401, "GatedRepo")
        if body and mood.busy:
            return self._refuse(mood.busy.pop(0), "")
        if not body and mood.busy_look_ups:
            return self._refuse(mood.busy_look_ups.pop(0), "")
        parts = unquote(self.path).strip("/").split("/")
        if len(parts) < 4:  # no file: some other page of a hub
            return self._refuse(404, "")
        if parts[0] == "storage":
            repository, revision, path = "/".join(parts[1:3]), mood.commit, "/".join(parts[3:])
        elif parts[0] == "datasets":
            repository, revision, path = "/".join(parts[1:3]), parts[4], "/".join(parts[5:])
        else:
            repository, revision, path = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        if repository not in self.hub.repositories:
            return self._refuse(404, "RepoNotFound")
        if revision not in {COMMIT, "main"}:
            return self._refuse(404, "RevisionNotFound")
        content = self.hub.repositories[repository].get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        if mood.storage is not None and path in self.hub.large and parts[0] != "storage":
            return self._redirect(f"{mood.storage}/storage/{repository}/{path}", content)
        return self._send(path, content, body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if self.hub.mood.retry_after is not None:
            self.send_header("Retry-After", self.hub.mood.retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _redirect(self, target: str, content: bytes) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("X-Repo-Commit", self.hub.mood.commit)
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _etag(self, path: str, content: bytes) -> str:
        if path in self.hub.large:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()

    def _send(self, path: str, content: bytes, body: bool) -> None:
        mood, etag = self.hub.mood, self._etag(path, content)
        content = content[: len(content) - mood.shorten] if body else content
        start, length, asked = 0, len(content), self.headers.get("Range", "")
        if asked and mood.ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first)
            content = content[: int(last) + 1] if last else content
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        part = start > 0 or len(content) < length
        self.send_response(206 if part else 200)
        self.send_header("X-Repo-Commit", mood.commit)
        if mood.etags:
            self.send_header("ETag", f'"{etag}"')
        if part:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{length}")
        if mood.whole or not body:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if body:
            self.hub.sent.append((path, len(content) - start))
            self._body(content, start)

    def _body(self, content: bytes, start: int) -> None:
        mood, sent = self.hub.mood, bytearray(content)
        if mood.corruptions and mood.corrupt_at is not None and mood.corrupt_at >= start:
            sent[mood.corrupt_at] ^= 1
            mood.corruptions -= 1
        stop = len(sent)
        if mood.breaks and mood.break_after is not None:
            mood.breaks -= 1
            stop = min(stop, start + mood.break_after)
        self.wfile.write(sent[start:stop])
        self.close_connection = True
