"""One HTTP/1.1 connection to one server: requests, heads and bodies."""

from __future__ import annotations

from time import monotonic

from store.errors import AccessDenied, NotReached, RemoteProtocolError, TimedOut, Unreachable
from store.format.http1 import HEAD_LIMIT, Endpoint, ResponseHead, encode_request, parse_head
from store.read.dialling import connect

CONNECT_LIMIT_S = 10.0
STALL_LIMIT_S = 10.0
"""A connection that brings no byte for this long is given up and another one tried."""
STREAM_BUFFER = 128 << 10
"""What is taken at once of a body that is used while it comes."""
ERROR_LIMIT = 8 << 10
"""So much is read of the body of an answer that is none, to say why."""
ERROR_LIMIT_S = 2.0
_NO_LIMIT_S = 86400.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.interfaces import Access


class Stale(Unreachable):
    """A kept connection was closed by the server before it answered anything."""


class Connection:
    """One connection to one server, for one thread at a time.

    ``deadline`` is the `monotonic` time at which the exchange under way is given
    up, however steadily bytes still come; ``stall_limit_s`` is how long it may be silent.
    ``used`` says that it has been idle, or has brought an answer.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        deadline: float,
        authorities: str = "",
        access: Access | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.give(deadline)
        self._access = access
        self._proxy = access.proxy(endpoint) if access is not None else None
        """By which ``endpoint`` is reached."""
        self.told = 0
        """The generation of the credentials that the last request had."""
        self.used = False
        limit_s = max(min(CONNECT_LIMIT_S, deadline - monotonic()), 0.001)
        try:
            self._stream = connect(endpoint, limit_s, authorities, access, self._proxy)
        except TimeoutError as error:
            raise TimedOut(f"{endpoint}{self._way()}: no connection in time: {error}") from None
        except OSError as error:
            raise NotReached(
                f"cannot connect to {endpoint}{self._way()}: {error.strerror or error}; "
                "is the store's address right, and does the server run?"
            ) from None

    def give(self, deadline: float, patience_s: float = _NO_LIMIT_S) -> None:
        """Give it time until ``deadline``, and ``patience_s`` of silence at most."""
        self.deadline = deadline
        self.stall_limit_s = min(STALL_LIMIT_S, patience_s)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def _way(self) -> str:
        """Return by whom the server is reached, for messages."""
        return f" by proxy {self._proxy.endpoint}" if self._proxy is not None else ""

    def ask(self, target: str, offset: int, size: int) -> tuple[ResponseHead, bytes]:
        """Ask for a range of ``target``; return as `request` does."""
        fields = self.own_fields(target, offset, size)
        target, more = self.route(target)
        return self.request(encode_request(self.endpoint, target, offset, size, fields + more))

    def own_fields(self, target: str, offset: int = 0, size: int = 0) -> str:
        """Return the header fields that tell this server who asks, each with its line's end."""
        if self._access is None:
            return ""
        self.told = self._access.generation
        return self._access.fields(self.endpoint, target, offset, size)

    def route(self, target: str) -> tuple[str, str]:
        """Return ``target`` as it is asked for on this way, and the header fields that takes."""
        if self._proxy is None or self.endpoint.scheme != "http":
            return target, ""
        # RFC 9112, 3.2.2: what a proxy is to fetch has its whole name.
        told = self._proxy.authorization
        fields = f"Proxy-Authorization: {told}\r\n" if told else ""
        return f"http://{self.endpoint.authority}{target}", fields

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

    def read_stream(self, begun: bytes, size: int, arrived: Callable[[memoryview], None]) -> None:
        """Give ``arrived`` the ``size`` bytes of a body that begins with ``begun``, each once.

        They are in memory that is used again when it returns.

        Raises:
            Unreachable, TimedOut: the connection failed before all was there.
            RemoteProtocolError: more came than the head promised.

        """
        if len(begun) > size:
            raise RemoteProtocolError(f"{self.endpoint}: more bytes than Content-Length says")
        if begun:
            arrived(memoryview(begun))
        buffer = memoryview(bytearray(min(size, STREAM_BUFFER)))
        left = size - len(begun)
        while left:
            try:
                self._stream.settimeout(self._patience_s())
                count = self._stream.recv_into(buffer[:left])
            except TimeoutError:
                raise TimedOut(
                    f"{self.endpoint}: stalled after {size - left} of {size} bytes"
                ) from None
            except OSError as error:
                raise Unreachable(f"{self.endpoint}: {error.strerror or error}") from None
            if not count:
                raise Unreachable(
                    f"{self.endpoint}: connection closed after {size - left} of {size} bytes"
                )
            left -= count
            arrived(buffer[:count])

    def read_error(self, head: ResponseHead, begun: bytes) -> bytes:
        """Return what comes soon of the body of an answer that is an error, `ERROR_LIMIT` at most.

        The connection is of no use afterwards.
        """
        deadline = min(monotonic() + ERROR_LIMIT_S, self.deadline)
        size = head.content_length
        limit = ERROR_LIMIT if size is None else min(size, ERROR_LIMIT)
        body = begun
        piece = memoryview(bytearray(ERROR_LIMIT))
        # One that is sent in chunks does not say how long it is: XML does.
        while len(body) < limit and b"</Error>" not in body:
            left_s = deadline - monotonic()
            if left_s <= 0:
                break
            try:
                self._stream.settimeout(left_s)
                count = self._stream.recv_into(piece)
            except OSError:
                # What has come has to do: the answer is an error with or without it.
                break
            if not count:
                break
            body += piece[:count]
        return body

    def _patience_s(self) -> float:
        """Return how long the next call may take.

        Raises:
            TimeoutError: no time is left.

        """
        left_s = self.deadline - monotonic()
        if left_s <= 0:
            raise TimeoutError
        return min(self.stall_limit_s, left_s)


def open_connection(
    endpoint: Endpoint, deadline: float, authorities: str, access: Access | None
) -> Connection:
    """Return a connection, made once more where ``access`` has changed since it was read.

    Raises:
        AccessDenied, RemoteError: as `Connection`.

    """
    told = access.generation if access is not None else 0
    try:
        return Connection(endpoint, deadline, authorities, access)
    except (AccessDenied, RemoteProtocolError):
        # Of a proxy that refuses, or a server that TLS does not trust.
        if access is None or not access.renew(told):
            raise
        return Connection(endpoint, deadline, authorities, access)
