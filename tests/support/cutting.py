"""A relay of bytes that cuts connections at a place that the test chooses."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from typing import Self


class Cutter:
    """Passes connections on to ``upstream``; a context manager."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._lock = threading.Lock()
        self._left: dict[str, int] = {}
        self._threads: list[threading.Thread] = []
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host_port = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more, and wait until whoever is connected has gone."""
        # Wakes accept(), which close() alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def cut_sent(self, after: int) -> None:
        """Once, end the connection by which the client has sent ``after`` more bytes."""
        self._left["sent"] = after

    def cut_received(self, after: int) -> None:
        """Once, end the connection by which the client has received ``after`` more bytes."""
        self._left["received"] = after

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as server:
            # Either may reset.
            with contextlib.suppress(OSError):
                while self._pass_on(client, server):
                    pass
            for end in (client, server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _pass_on(self, client: socket.socket, server: socket.socket) -> bool:
        """Pass on what has come; return whether more may come."""
        for source in select.select([client, server], [], [])[0]:
            way, target = ("sent", server) if source is client else ("received", client)
            data = source.recv(1 << 16)
            if not data:
                return False
            allowed = self._allowed(way, len(data))
            target.sendall(data[:allowed])
            if allowed < len(data):
                return False
        return True

    def _allowed(self, way: str, size: int) -> int:
        """Return how many of ``size`` bytes may pass before the cut, and count it if it is due."""
        with self._lock:
            left = self._left.pop(way, None)
            if left is None:
                return size
            if size > left:
                self.cuts += 1
                return left
            self._left[way] = left - size
            return size
