"""A registry's uploads to the letter of the specification: what has arrived stays.

docker-registry 2.8 forgets an upload whose connection was cut; others go on with it.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Take connections that are cut as they come; all else is a fault of the test's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class UploadServer:
    """Takes blobs of any repository; a context manager."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.arrived: dict[str, bytearray] = {}
        """Uploads under way, by their path."""
        self.received = 0
        """Bytes of bodies, of all uploads."""
        self._server = _Server(("127.0.0.1", 0), _handler_for(self))
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler_for(server: UploadServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            found = server.blobs.get(self.path.rpartition("/")[2])
            self._answer(404 if found is None else 200, size=len(found or b""))

        def do_POST(self) -> None:
            path = f"{self.path.partition('?')[0]}{len(server.arrived)}"
            server.arrived[path] = bytearray()
            self._answer(202, path)

        def do_PATCH(self) -> None:
            held = server.arrived[self.path]
            start = int(self.headers["Content-Range"].partition("-")[0])
            if start != len(held):
                self._answer(416, self.path)
                return
            left = int(self.headers["Content-Length"])
            while left and (piece := self.rfile.read1(min(left, 1 << 16))):
                held += piece
                server.received += len(piece)
                left -= len(piece)
            self._answer(202, self.path)

        def do_GET(self) -> None:
            self._answer(204 if self.path in server.arrived else 404, self.path)

        def do_PUT(self) -> None:
            path, digest = self.path.partition("?")[0], parse_qs(urlsplit(self.path).query)
            data = bytes(server.arrived.pop(path))
            if digest["digest"] != [f"sha256:{hashlib.sha256(data).hexdigest()}"]:
                self._answer(400)
                return
            server.blobs[digest["digest"][0]] = data
            self._answer(201, path)

        def do_DELETE(self) -> None:
            server.arrived.pop(self.path, None)
            self._answer(204)

        def _answer(self, status: int, path: str = "", size: int = 0) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(size))
            if path:
                self.send_header("Location", path)
                self.send_header("Range", f"0-{max(0, len(server.arrived.get(path, b'')) - 1)}")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
