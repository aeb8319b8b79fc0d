"""A server on the loopback that takes uploads as a model hub does: repositories, trees, git-LFS objects, commits."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

TOKEN = "hf_CANARY"
LARGE = (".safetensors", ".gguf", ".model")


class UploadServer:
    """`with UploadServer() as server: ... server.address`; `files` is what a visitor of the repository sees."""

    def __init__(self) -> None:
        self.repositories: dict[str, bool] = {}
        """{owner/name: private}."""
        self.files: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        """Large objects by SHA-256: they stay when a commit never comes."""
        self.requests: list[tuple[str, str]] = []
        self.puts: list[int] = []
        self.refuse_puts_after: int | None = None
        """Answer 403 to every large object behind so many."""
        self.commits: list[str] = []
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


class _Handler(BaseHTTPRequestHandler):
    hub: UploadServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name is http.server's
        """Stay silent."""

    def _json(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _allowed(self) -> bool:
        self.hub.requests.append((self.command, self.path))
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._body()
        self._json({"error": "Invalid credentials"}, 401)
        return False

    def do_GET(self) -> None:
        if not self._allowed():
            return None
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"] and parts[4:5] == ["tree"]:
            files = self.hub.files.get("/".join(parts[2:4]), {})
            return self._json([_entry(name, content) for name, content in sorted(files.items())])
        return self._json({"error": "not found"}, 404)

    def do_PUT(self) -> None:
        content, oid = self._body(), self.path.rsplit("/", 1)[-1]
        self.hub.requests.append(("PUT", self.path))
        after = self.hub.refuse_puts_after
        if after is not None and len(self.hub.puts) >= after:
            return self._json({"error": "Quota exceeded"}, 403)
        assert hashlib.sha256(content).hexdigest() == oid, "the bytes are those that were announced"
        self.hub.puts.append(len(content))
        self.hub.objects[oid] = content
        return self._json({})

    def do_POST(self) -> None:
        if not self._allowed():
            return None
        path, body = self.path.split("?")[0], self._body()
        parts = path.strip("/").split("/")
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        if parts[4:5] == ["preupload"]:
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for f in json.loads(body)["files"]
            ]
            return self._json({"files": modes})
        if parts[4:5] == ["commit"]:
            return self._commit("/".join(parts[2:4]), [json.loads(line) for line in body.splitlines()])
        return self._json({"error": "not found"}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        repository = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        address = {"url": f"{self.hub.address}/{repository}"}
        if repository in self.hub.repositories:
            return self._json({**address, "error": "You already created this model repo"}, 409)
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.hub.repositories[repository], self.hub.files[repository] = private, {}
        return self._json(address)

    def _batch(self, asked: dict[str, Any]) -> None:
        answers = []
        for item in asked["objects"]:
            answer: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.objects:
                answer["actions"] = {"upload": {"href": f"{self.hub.address}/objects/{item['oid']}"}}
            answers.append(answer)
        return self._json({"transfer": "basic", "objects": answers})

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        files = self.hub.files[repository]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        oid = f"{len(self.hub.commits):040x}"
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.address}/{repository}/commit/{oid}"})


def _entry(name: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": blob}
    if name.endswith(LARGE):
        sha = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 130}
    return entry
