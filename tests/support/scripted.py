"""A server that plays scripts of bytes: everything that real servers and networks do wrong."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Self

Step = bytes | float | str
"""Bytes to send, seconds to wait, ``"reset"`` or ``"close"`` or ``"request"`` (wait for one)."""
Script = Sequence[Step]


def response(status: str = "206 Partial Content", body: bytes = b"", **fields: str | None) -> bytes:
    """Return a response; ``fields`` are header fields, ``_`` for ``-``, None leaves one out."""
    named: dict[str, str | None] = {"content_length": str(len(body)), **fields}
    lines = [f"{k.replace('_', '-')}: {v}" for k, v in named.items() if v is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1") + body


def partial(data: bytes, offset: int, size: int) -> bytes:
    """Return the right answer to a range of ``data``."""
    body = data[offset : offset + size]
    found = f"bytes {offset}-{offset + len(body) - 1}/{len(data)}"
    return response(body=body, content_range=found)


class ScriptedServer:
    """Plays one script a connection, in order, the last one again and again."""

    def __init__(self, *scripts: Script, context: ssl.SSLContext | None = None) -> None:
        self._scripts = list(scripts)
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self.requests: list[bytes] = []
        """Heads of all requests that came."""
        self.connections = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # Wakes accept(), which close() alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()
        for thread in self._threads:
            thread.join(5)

    def _start(self, action: Callable[[], None]) -> None:
        thread = threading.Thread(target=action, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            number = min(self.connections, len(self._scripts) - 1)
            self.connections += 1
            script = self._scripts[number]
            self._start(lambda c=connection, s=script: self._play(c, s))

    def _play(self, connection: socket.socket, script: Script) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            for step in script:
                if isinstance(step, bytes):
                    connection.sendall(step)
                elif isinstance(step, float):
                    self._ended.wait(step)
                elif step == "request":
                    self._read_request(connection)
                elif step == "reset":
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    break
                else:
                    break
            connection.close()
        except OSError:
            connection.close()

    def _read_request(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            found = connection.recv(65536)
            if not found:
                raise ConnectionError
            head += found
        self.requests.append(head)
