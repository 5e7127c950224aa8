"""A relay between a daemon and a store's server, that does wrong on demand what networks do."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

DNS_FLAGS_FAILED = 0x8182
"""An answer that says SERVFAIL (RFC 1035, 4.1.1)."""
DNS_FLAGS_NO_NAME = 0x8183
DNS_FLAGS_FOUND = 0x8180


@dataclass
class Fault:
    """Something that goes wrong with requests; new for each use, since it counts."""

    act: Callable[[Exchange], None] | None = None
    """Answers a request; the connection is closed afterwards."""
    times: int = 1 << 30
    """So many requests are answered wrongly, those after them rightly."""
    is_down: bool = False
    """Connections are reset as soon as they are accepted."""
    cuts: bool = False
    """Connections that there are when it begins are ended."""
    contexts: list[ssl.SSLContext | None] = field(default_factory=list)
    """What new connections of a relay with TLS get instead; None for no TLS at all."""
    injected: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_due(self) -> bool:
        """Whether once more something goes wrong; count it."""
        with self._lock:
            is_due = self.injected < self.times
            self.injected += is_due
            return is_due


class Exchange:
    """One request that has come, and the ways to answer it."""

    def __init__(self, relay: Relay, client: socket.socket, head: bytes) -> None:
        self.head = head
        self._relay = relay
        self._client = client

    def fetched(self) -> tuple[bytes, bytes]:
        """Give head, with its blank line, and body of the right answer, from the server itself."""
        with socket.create_connection(self._relay.upstream, timeout=10) as server:
            server.sendall(self.head)
            received = b""
            while b"\r\n\r\n" not in received:
                received += self._more(server)
            head, _, body = received.partition(b"\r\n\r\n")
            size = next(
                int(line.partition(b":")[2])
                for line in head.splitlines()
                if line.lower().startswith(b"content-length:")
            )
            while len(body) < size:
                body += self._more(server)
        return head + b"\r\n\r\n", body

    @staticmethod
    def _more(server: socket.socket) -> bytes:
        found = server.recv(1 << 18)
        if not found:
            raise ConnectionError("the server itself closed")
        return found

    def send(self, data: bytes) -> None:
        """Send to the client."""
        self._client.sendall(data)

    def reset(self) -> None:
        """End the connection so that the client sees it reset."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._client.close()

    def keep_silent(self, seconds: float) -> bool:
        """Wait; return False when the relay is closed or the fault is over."""
        return self._relay.waits(seconds)


class Relay:
    """Listens on ``address`` and passes requests on to ``upstream``; a context manager."""

    def __init__(
        self,
        upstream: tuple[str, int],
        address: str,
        context: ssl.SSLContext | None = None,
        held: bool = False,
    ) -> None:
        """Relay; with ``held``, requests wait until a fault begins."""
        self.upstream = upstream
        self.requests = 0
        self._context = context
        self._fault: Fault | None = None
        self._changed = threading.Event()
        self._held = threading.Event()
        if not held:
            self._held.set()
        self._ended = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((address, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://{address}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Listen no more, and close what is open."""
        self._ended = True
        self._changed.set()
        self._held.set()
        # Wakes accept(), which close() alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._close_all()

    def begin(self, fault: Fault) -> None:
        """Do this wrong from now on."""
        self._fault = fault
        if fault.cuts or fault.is_down or fault.contexts:
            self._close_all()
        self._held.set()

    def end(self) -> None:
        """Do everything right again."""
        self._fault = None
        self._changed.set()
        self._changed = threading.Event()
        self._held.set()

    def waits(self, seconds: float) -> bool:
        """Wait; return False when the relay is closed or the fault is over."""
        return not self._changed.wait(seconds) and not self._ended

    def _close_all(self) -> None:
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            # Wakes who reads from it; it is closed by its own thread.
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed meanwhile

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self._open.add(client)
        raw = client
        try:
            self._held.wait()
            client = self._dressed(client)
            with self._lock:
                self._open.add(client)
            while not self._ended and self._answer(client):
                pass
        except OSError:
            return  # the client, or a fault, has closed it
        finally:
            with self._lock:
                self._open -= {raw, client}
            client.close()

    def _dressed(self, client: socket.socket) -> socket.socket:
        """Return the connection with what it begins with: a reset, TLS or nothing."""
        fault, context = self._fault, self._context
        if fault is not None and fault.is_down and fault.is_due():
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise ConnectionError
        if fault is not None and fault.contexts and fault.is_due():
            context = fault.contexts[0]
            if context is None:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                raise ConnectionError
        if context is None:
            return client
        client.settimeout(20)
        return context.wrap_socket(client, server_side=True)

    def _answer(self, client: socket.socket) -> bool:
        """Answer a request; return whether another may follow."""
        head = b""
        while b"\r\n\r\n" not in head:
            found = client.recv(1 << 16)
            if not found:
                return False
            head += found
        self._held.wait()
        self.requests += 1
        exchange = Exchange(self, client, head)
        fault = self._fault
        if fault is not None and fault.act is not None and fault.is_due():
            fault.act(exchange)
            return False
        for piece in exchange.fetched():
            client.sendall(piece)
        return True


class NameServer:
    """Answers every question for an address with ``found``, or as ``fault`` says; UDP."""

    def __init__(self, address: str, found: str) -> None:
        """Answer on port 53 of ``address``, which takes root."""
        self.fault = ""
        """``silent``, ``failed`` or ``no name``; empty for the right answer."""
        self.injected = 0
        self._found = socket.inet_aton(found)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes recvfrom(), which close() alone does not, although it says that nobody is connected.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                asked, client = self._socket.recvfrom(512)
            except OSError:
                return
            if not asked:
                return
            answer = self._answer_to(asked)
            if answer:
                self._socket.sendto(answer, client)

    def _answer_to(self, asked: bytes) -> bytes:
        # RFC 1035, 4.1: a header of 12 bytes, the name, its kind (A is 1) and class.
        name_end = asked.index(b"\0", 12) + 1
        question = asked[12 : name_end + 4]
        kind = int.from_bytes(asked[name_end : name_end + 2], "big")
        flags = {"failed": DNS_FLAGS_FAILED, "no name": DNS_FLAGS_NO_NAME}.get(self.fault)
        if self.fault:
            self.injected += 1
        if self.fault == "silent":
            return b""
        is_found = flags is None and kind == 1
        counts = (flags or DNS_FLAGS_FOUND, 1, int(is_found), 0, 0)
        answer = asked[:2] + struct.pack(">5H", *counts) + question
        if is_found:
            answer += b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + self._found
        return answer


def wait_until(is_so: Callable[[], bool], limit_s: float) -> bool:
    """Wait until ``is_so``; return False where it is not within the time."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
