"""A small hub on the loopback address that serves downloads of weights to huggingface_hub's client."""

import hashlib
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """A failure of the next ``times`` requests whose method and path match."""

    method: str
    path: str
    times: int = 1
    status: int | None = None  # respond with this error
    retry_after: int | str | None = None
    drop_after: int | None = None  # send this number of bytes, then close the connection
    hang: bool = False  # accept the request and never answer it
    drip_s: float = 0  # pause between single bytes of the body
    ignore_range: bool = False  # send the file from its start, whatever range is requested


def small_weights(text: bytes) -> bytes:
    """Return a few bytes that start and end like PyTorch's weight files."""
    return b"PK\x03\x04" + text + b"PK\x05\x06" + bytes(18)


@dataclass
class Served:
    """A request and its response."""

    method: str
    path: str
    range: str | None
    token: str | None
    status: int
    body_bytes: int
    time: float


@dataclass
class HubServer:
    """Repositories of files, and plain files below ``/files/``.

    As on the real hub, a request for a repository's file is redirected, with its SHA-256, to a second server.
    """

    # Keyed by owner/name or owner/name@revision.
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    # Wrong SHA-256 to announce, by repository.
    announced: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    pause_s: float = 0  # between pieces of a body
    piece: int = 1 << 20
    port: int = 0  # any free one

    def __enter__(self) -> Self:
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._servers = [_Server(("127.0.0.1", port), _Handler) for port in (self.port, 0)]
        for server in self._servers:
            server.hub = self
            threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
            ).start()
        self.endpoint, self.store = (
            f"http://127.0.0.1:{server.server_port}" for server in self._servers
        )
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop both servers, so that nothing listens at the port."""
        self._ended.set()
        servers, self._servers = self._servers, []
        for server in servers:
            server.shutdown()
            server.hang_up()
            server.server_close()

    def body_bytes(self) -> int:
        """Return the number of bytes of weights that were sent."""
        with self._lock:
            return sum(one.body_bytes for one in self.served if one.status < 300)

    def downloads(self) -> list[Served]:
        """Return the requests that were answered with weights, or a part of them."""
        with self._lock:
            return [one for one in self.served if one.method == "GET" and one.status < 300]

    def asked(self, method: str, path: str) -> list[Served]:
        """Return the requests with this method whose path contains ``path``."""
        with self._lock:
            return [one for one in self.served if one.method == method and path in one.path]

    def weights_requests(self) -> int:
        """Return the number of requests about weights; the client makes others too."""
        with self._lock:
            return sum("/api/" not in one.path for one in self.served)

    def wait(self, seconds: float) -> bool:
        """Wait, and return whether the server ended in the meantime."""
        return self._ended.wait(seconds)

    def note(self, served: Served) -> None:
        with self._lock:
            self.served.append(served)

    def fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.path in path:
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: HubServer

    def __init__(self, *arguments: Any) -> None:
        self._open: list[socket.socket] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Record the connection; its client may keep it for another request."""
        self._open.append(request)
        super().process_request(request, client_address)

    def hang_up(self) -> None:
        """Close all connections, so that no client reaches this server instead of its successor at the port."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_arguments: object) -> None:
        """Ignore clients that were killed."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        fault = self.server.hub.fault(self.command, self.path)
        if fault is not None and fault.hang:
            return self._hang()
        if fault is not None and fault.ignore_range:
            del self.headers["Range"]
        if fault is not None and fault.status is not None:
            extra = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            return self._send(fault.status, extra)
        drop_after, drip_s = (None, 0.0) if fault is None else (fault.drop_after, fault.drip_s)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            return self._redirect(*match.groups())
        if match := re.fullmatch(r"/blobs/([^/]+)/([^/]+)/(.+)", self.path):
            return self._file(
                self.server.hub.repositories[f"{match[1]}/{match[2]}"][match[3]], drop_after, drip_s
            )
        content = self.server.hub.files.get(self.path.removeprefix("/files/"))
        return self._send(404) if content is None else self._file(content, drop_after, drip_s)

    def _hang(self) -> None:
        started = time.monotonic()
        self.close_connection = True
        self.server.hub.note(
            Served(self.command, self.path, self.headers.get("Range"), None, 0, 0, started)
        )
        self.server.hub.wait(120)

    def _redirect(self, name: str, revision: str, file: str) -> None:
        hub = self.server.hub
        if not any(known.partition("@")[0] == name for known in hub.repositories):
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        repository = name if revision == "main" else f"{name}@{revision}"
        if repository not in hub.repositories:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        content = hub.repositories[repository].get(file)
        if content is None:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        digest = hub.announced.get(repository) or hashlib.sha256(content).hexdigest()
        self._send(
            302,
            {
                "Location": f"{hub.store}/blobs/{repository}/{file}",
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(content)),
            },
        )

    def _file(self, content: bytes, drop_after: int | None, drip_s: float) -> None:
        start = (
            int(match[1])
            if (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")))
            else 0
        )
        headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, headers, memoryview(content)[start:], drop_after, drip_s)

    def _send(
        self,
        status: int,
        headers: dict[str, str] | None = None,
        body: Any = b"",
        drop: int | None = None,
        drip_s: float = 0,
    ) -> None:
        hub, started = self.server.hub, time.monotonic()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        sent = 0
        end_of_body = len(body) if drop is None else min(drop, len(body))
        length = 1 if drip_s else hub.piece
        try:
            if self.command == "GET":
                for piece in range(0, end_of_body, length):
                    end = min(piece + length, end_of_body)
                    self.wfile.write(body[piece:end])
                    sent = end
                    if hub.wait(drip_s or hub.pause_s):
                        break
            if drop is not None:
                self.close_connection = True
        finally:
            range_, token = self.headers.get("Range"), self.headers.get("Authorization")
            hub.note(Served(self.command, self.path, range_, token, status, sent, started))

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""
