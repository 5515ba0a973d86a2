"""A hub on the loopback address that accepts commits from huggingface_hub's client."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"
AS_LFS = (".npy", ".parquet")


@dataclass
class HubOfDataSets:
    """Data sets by name, each with its files; only owners see those in ``private``."""

    datasets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)  # Git LFS objects by SHA-256
    token: str = "mine"
    port: int = 0
    refuses: int | None = None  # if set, the response status of every commit

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.hub = self
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        """Apply the lines of a commit."""
        files = self.datasets[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: HubOfDataSets


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub = self.server.hub
        named = re.match(r"(?:/api)?/datasets/([^/]+/[^/?]+)", self.path)
        if named and named[1] not in hub.datasets:
            return self._send(404, headers={"X-Error-Code": "RepoNotFound"})
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/[^/]+(?:\?.*)?", self.path):
            files = hub.datasets[match[1]]
            return self._json(
                [
                    {"type": "file", "path": path, "size": len(c), "oid": "0"}
                    for path, c in files.items()
                ]
            )
        if match := re.fullmatch(
            r"/api/datasets/([^/]+/[^/?]+)(?:/revision/[^/]+)?(?:\?.*)?", self.path
        ):
            return self._json(
                {"id": match[1], "sha": COMMIT, "private": match[1] in hub.private, "tags": []}
            )
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path):
            content = hub.datasets[match[1]].get(match[2])
            if content is None:
                return self._send(
                    404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
                )
            digest = hashlib.sha256(content).hexdigest()
            return self._send(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"'})
        return self._send(404)

    def do_PUT(self) -> None:
        self.server.hub.objects[self.path.removeprefix("/objects/")] = self._body()
        self._send(200)

    def do_POST(self) -> None:
        hub, body = self.server.hub, self._body()
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._send(401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            assert asked["type"] == "dataset"
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name in hub.datasets:
                return self._send(
                    409, json.dumps({"url": f"{hub.endpoint}/datasets/{name}"}).encode()
                )
            hub.datasets[name] = {".gitattributes": b""}
            if asked.get("private") or asked.get("visibility") == "private":
                hub.private.add(name)
            return self._json({"url": f"{hub.endpoint}/datasets/{name}", "name": name, "id": "1"})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/preupload/[^/]+", self.path):
            files = json.loads(body)["files"]
            modes = [
                (file["path"], "lfs" if file["path"].endswith(AS_LFS) else "regular")
                for file in files
            ]
            return self._json(
                {
                    "files": [
                        {"path": path, "uploadMode": mode, "shouldIgnore": False}
                        for path, mode in modes
                    ]
                }
            )
        if re.fullmatch(r"/datasets/[^/]+/[^/]+\.git/info/lfs/objects/batch", self.path):
            objects = json.loads(body)["objects"]
            actions = [
                {**one, "actions": {"upload": {"href": f"{hub.endpoint}/objects/{one['oid']}"}}}
                for one in objects
            ]
            return self._json({"transfer": "basic", "objects": actions})
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/commit/[^/]+", self.path):
            if hub.refuses is not None:
                return self._send(hub.refuses)
            hub.commit(match[1], [json.loads(line) for line in body.splitlines() if line])
            return self._json(
                {
                    "commitUrl": f"{hub.endpoint}/datasets/{match[1]}/commit/{COMMIT}",
                    "commitOid": COMMIT,
                    "success": 1,
                }
            )
        return self._send(404)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""
