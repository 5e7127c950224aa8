"""A store behind HTTP(S), read by ranges over connections that are kept.

A client of its own because the common ones cost 50-100 ms of imports at every
container start, and half the throughput (docs/decisions/0003-lean-http.md).
`_socket` instead of `socket` saves the `enum` and `selectors` imports.
"""

from __future__ import annotations

import _socket
from _thread import allocate_lock, start_new_thread
from time import monotonic

from store.errors import (
    AccessDenied,
    BootfsError,
    PackNotFound,
    RemoteBusy,
    RemoteProtocolError,
    SizeMismatch,
    TimedOut,
    Unreachable,
)
from store.format.http1 import (
    HEAD_LIMIT,
    Endpoint,
    ResponseHead,
    check_content_range,
    check_plain_body,
    encode_request,
    object_size,
    parse_head,
    parse_url,
    resolve_redirect,
)
from store.read.retry import until_done

CONNECT_LIMIT_S = 10.0
LOOKUP_LIMIT_S = 2.0
"""The C library asks a silent name server again after 5 s; a lookup of its own is sooner there."""
STALL_LIMIT_S = 10.0
"""A connection that brings no byte for this long is given up and another one tried."""
REDIRECT_LIMIT = 5
KEPT_CONNECTIONS = 16

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    Address = tuple[
        int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
    ]
    """What a socket is made of and connected to."""

    class Stream(Protocol):
        """What a connection needs of a plain or a TLS socket."""

        def settimeout(self, seconds: float | None, /) -> None:
            """Limit each call that follows."""

        def sendall(self, data: bytes, /) -> None:
            """Send all of ``data``."""

        def recv_into(self, buffer: memoryview, /) -> int:
            """Receive into ``buffer``; return how many bytes, 0 at the end."""

        def close(self) -> None:
            """Close it."""


class Stale(Unreachable):
    """A kept connection was closed by the server before it answered anything."""


class Connection:
    """One connection to one server, for one thread at a time.

    ``deadline`` is the `monotonic` time at which the exchange under way is given
    up, however steadily bytes still come; ``stall_limit_s`` is how long it may be silent.
    ``used`` says that it has been idle, or has brought an answer.
    """

    def __init__(self, endpoint: Endpoint, deadline: float, authorities: str = "") -> None:
        self.endpoint = endpoint
        self.deadline = deadline
        self.stall_limit_s = STALL_LIMIT_S
        self.used = False
        limit_s = max(min(CONNECT_LIMIT_S, deadline - monotonic()), 0.001)
        try:
            self._stream = _connect(endpoint, limit_s, authorities)
        except TimeoutError as error:
            raise TimedOut(f"{endpoint}: no connection in time: {error}") from None
        except OSError as error:
            raise Unreachable(
                f"cannot connect to {endpoint}: {error.strerror or error}; "
                "is the store's address right, and does the server run?"
            ) from None

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def request(self, message: bytes) -> tuple[ResponseHead, bytes]:
        """Send a request; return the response's head, and what of the body came with it.

        Raises:
            Stale, Unreachable, TimedOut: the connection failed.
            RemoteProtocolError: the answer is not HTTP.

        """
        buffer = memoryview(bytearray(HEAD_LIMIT))
        filled = 0
        try:
            self._stream.settimeout(self._patience_s())
            self._stream.sendall(message)
            while True:
                self._stream.settimeout(self._patience_s())
                count = self._stream.recv_into(buffer[filled:])
                if not count:
                    if filled == 0 and self.used:
                        raise Stale(f"{self.endpoint}: connection closed while idle")
                    raise Unreachable(f"{self.endpoint}: connection closed in the head")
                filled += count
                head, begun = self._parse(bytes(buffer[:filled]))
                if head is not None:
                    self.used = True
                    return head, begun
                if filled == HEAD_LIMIT:
                    raise RemoteProtocolError(f"{self.endpoint}: response head is endless")
        except TimeoutError:
            raise TimedOut(
                f"{self.endpoint}: no answer within {self.stall_limit_s:g} s, "
                "or what was left of a read"
            ) from None
        except OSError as error:
            kind = Stale if self.used and not filled else Unreachable
            raise kind(f"{self.endpoint}: {error.strerror or error}") from None

    def _parse(self, received: bytes) -> tuple[ResponseHead | None, bytes]:
        """Return the head when it is complete, and what follows it."""
        while True:
            text, separator, rest = received.partition(b"\r\n\r\n")
            if not separator:
                return None, b""
            try:
                head = parse_head(text)
            except RemoteProtocolError:
                if self.used:
                    # Left over from the response before: only this connection is spoilt.
                    raise Stale(f"{self.endpoint}: bytes after the end of a response") from None
                raise
            if not 100 <= head.status < 200 or head.status == 101:
                return head, rest
            # Interim responses (RFC 9110, 15.2) announce the one that counts.
            received = rest

    def read_body(
        self, begun: bytes, size: int, arrived: Callable[[memoryview], None] | None
    ) -> bytes:
        """Return a body of ``size`` bytes that begins with ``begun``; see `Source.fetch`.

        Raises:
            Unreachable, TimedOut: the connection failed before all was there.
            RemoteProtocolError: more came than the head promised.

        """
        if len(begun) > size:
            raise RemoteProtocolError(f"{self.endpoint}: more bytes than Content-Length says")
        body = bytearray(size)
        view = memoryview(body)
        view[: len(begun)] = begun
        filled = len(begun)
        while filled < size:
            try:
                self._stream.settimeout(self._patience_s())
                count = self._stream.recv_into(view[filled:])
            except TimeoutError:
                raise TimedOut(f"{self.endpoint}: stalled after {filled} of {size} bytes") from None
            except OSError as error:
                raise Unreachable(f"{self.endpoint}: {error.strerror or error}") from None
            if not count:
                raise Unreachable(
                    f"{self.endpoint}: connection closed after {filled} of {size} bytes"
                )
            filled += count
            if arrived is not None and filled < size:
                arrived(view[:filled])
        if arrived is not None:
            arrived(view)
        return bytes(body)

    def _patience_s(self) -> float:
        """Return how long the next call may take.

        Raises:
            TimeoutError: no time is left.

        """
        left_s = self.deadline - monotonic()
        if left_s <= 0:
            raise TimeoutError
        return min(self.stall_limit_s, left_s)


def _connect(endpoint: Endpoint, limit_s: float, authorities: str) -> Stream:
    """Return a connected stream, TLS where the scheme says so.

    All of it, with all addresses that the name has, takes ``limit_s`` at most.

    Raises:
        OSError: as the socket calls do (a failed name resolution is one too).

    """
    deadline = monotonic() + limit_s
    problem: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in _addresses(endpoint, limit_s):
        raw = _socket.socket(family, kind, protocol)
        try:
            raw.settimeout(max(deadline - monotonic(), 0.001))
            raw.connect(address)
            raw.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError as error:
            raw.close()
            problem = error
            continue
        if endpoint.scheme == "https":
            from store.read.tls import wrap

            raw.settimeout(max(deadline - monotonic(), 0.001))
            return wrap(raw, endpoint.host, authorities)
        return raw
    raise problem


def _addresses(endpoint: Endpoint, limit_s: float) -> list[Address]:
    """Return what `_socket.getaddrinfo` does, within ``limit_s``.

    The C library waits for a name server as long as /etc/resolv.conf says, by default
    10 s for each: in a thread of its own, which ends by itself when nobody waits any more.

    Raises:
        OSError: there is none, or none came in time.

    """
    found: list[Address] = []
    problems: list[OSError] = []
    done = allocate_lock()
    done.acquire()

    def look_up(flags: int) -> None:
        try:
            # As bytes: a text would be taken for an international name, and its codec imported.
            host = endpoint.host.encode("ascii")
            kind = _socket.SOCK_STREAM
            found.extend(_socket.getaddrinfo(host, endpoint.port, 0, kind, 0, flags))
        except OSError as error:
            problems.append(error)
        finally:
            done.release()

    if ":" in endpoint.host or not endpoint.host.strip("0123456789."):
        # An address: nobody has to be asked.
        look_up(_socket.AI_NUMERICHOST)
    else:
        try:
            start_new_thread(look_up, (0,))
        except RuntimeError:
            # The container may have no more threads (--pids-limit).
            look_up(0)
    if not done.acquire(timeout=min(limit_s, LOOKUP_LIMIT_S)):
        raise TimeoutError("no name server answers")
    if problems:
        raise problems[0]
    return found


class HttpSource:
    """Objects at ``URL/NAME`` of an HTTP server that answers ranges."""

    read_ahead = 128 << 10
    """100 Mbit/s for 10 ms, or 1 Gbit/s for 1 ms."""

    def __init__(self, url: str, read_limit_s: float, authorities: str = "") -> None:
        self.location = url
        self._endpoint = parse_url(url)
        self._limit_s = read_limit_s
        self._authorities = authorities
        self._lock = allocate_lock()
        self._idle: list[Connection] = []

    def dial(self) -> None:
        """Connect now, so that the first fetch finds a connection; failure shows there."""
        try:
            self._keep(self._open(self._endpoint, monotonic() + CONNECT_LIMIT_S))
        except BootfsError:
            return

    def close(self) -> None:
        """Close the connections that are kept; no fetch may be under way."""
        while self._idle:
            self._idle.pop().close()

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        """Return exactly ``size`` bytes of object ``name``; see `Source`."""
        return until_done(
            lambda left_s: self.fetch_once(name, offset, size, arrived, left_s, left_s),
            self._limit_s,
            f"{self._endpoint}/{name}",
        )

    def fetch_once(
        self,
        name: str,
        offset: int,
        size: int,
        arrived: Callable[[memoryview], None] | None,
        limit_s: float,
        patience_s: float,
    ) -> bytes:
        """Do the same by one try; see `Mirror`."""
        deadline = monotonic() + limit_s
        begins = monotonic() + min(limit_s, patience_s)
        target = f"{self._endpoint.path}/{name}"
        while True:
            connection = self._take(begins)
            is_kept = False
            try:
                for _ in range(REDIRECT_LIMIT + 1):
                    endpoint = connection.endpoint
                    head, begun = connection.request(encode_request(endpoint, target, offset, size))
                    if head.status not in (301, 302, 303, 307, 308):
                        break
                    connection.close()
                    target, endpoint = resolve_redirect(
                        endpoint, target, head.fields.get("location", "")
                    )
                    connection = self._open(endpoint, begins)
                else:
                    raise RemoteProtocolError(
                        f"{self._endpoint}/{name}: more than {REDIRECT_LIMIT} redirects"
                    )
                check_head(head, offset, size, f"{self._endpoint}/{name}")
                connection.deadline = deadline
                connection.stall_limit_s = min(STALL_LIMIT_S, patience_s)
                body = connection.read_body(begun, size, arrived)
                is_kept = head.keeps_alive and connection.endpoint is self._endpoint
            except Stale:
                # Says nothing about the server: it only tired of an idle connection.
                continue
            finally:
                if not is_kept:
                    connection.close()
            self._keep(connection)
            return body

    def _open(self, endpoint: Endpoint, deadline: float) -> Connection:
        return Connection(endpoint, deadline, self._authorities)

    def _take(self, deadline: float) -> Connection:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            return self._open(self._endpoint, deadline)
        connection.deadline = deadline
        connection.stall_limit_s = STALL_LIMIT_S
        return connection

    def _keep(self, connection: Connection) -> None:
        # It may be closed while it is idle, even where nothing was asked of it yet.
        connection.used = True
        with self._lock:
            if len(self._idle) < KEPT_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()


def check_head(head: ResponseHead, offset: int, size: int, where: str) -> None:
    """Return when the body will be exactly the bytes asked for; raise what it means otherwise."""
    _check_status(head, offset, size, where)
    check_plain_body(head)
    length = head.content_length
    if head.status == 206:
        total = object_size(head)
        if total is not None and total < offset + size:
            raise SizeMismatch(where, offset + size, total)
        check_content_range(head, offset, size)
    elif offset == 0 and length is not None and length < size:
        raise SizeMismatch(where, size, length)
    elif offset or length != size:
        raise RemoteProtocolError(
            f"{where}: the server answers a range with the whole object; "
            "a store needs a server with range requests"
        )


def _check_status(head: ResponseHead, offset: int, size: int, where: str) -> None:
    status = head.status
    if status in (200, 206):
        return
    if status in (404, 410):
        raise PackNotFound(
            f"{where}: {status}; the store does not hold it: is BLOB_STORE the right one?"
        )
    if status in (401, 403, 407):
        raise AccessDenied(f"{where}: {status}; the server refuses access")
    if status == 416:
        raise SizeMismatch(where, offset + size, object_size(head) or 0)
    if status in (429, 503):
        after = head.fields.get("retry-after", "")
        is_seconds = after.isascii() and after.isdigit()
        raise RemoteBusy(f"{where}: {status}", float(after) if is_seconds else None)
    if status >= 500 or status == 408:
        raise Unreachable(f"{where}: {status} from the server")
    raise RemoteProtocolError(f"{where}: unexpected answer {status}")
