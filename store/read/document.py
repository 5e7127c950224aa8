"""Small answers of an HTTP server, read whole; imported by those who ask for tokens."""

from __future__ import annotations

from store.errors import RemoteProtocolError, TimedOut, Unreachable
from store.read.connection import Connection

LIMIT = 1 << 20
"""Bytes of a document: a token is some kilobytes."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from store.format.http1 import ResponseHead


class DocumentConnection(Connection):
    """A connection for one request, whose answer may be sent in any way HTTP/1.1 knows."""

    def read_document(self, head: ResponseHead, begun: bytes) -> bytes:
        """Return the body whole that begins with ``begun``.

        Raises:
            Unreachable, TimedOut: the connection failed before all was there.
            RemoteProtocolError: it is encoded, malformed, or longer than `LIMIT`.

        """
        encoding = head.fields.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise RemoteProtocolError(f"{self.endpoint}: Content-Encoding is {encoding!r}")
        if head.fields.get("transfer-encoding", "").lower() == "chunked":
            return self._read_pieces(begun)
        size = head.content_length
        if size is None:
            return self._received(begun, LIMIT + 1, may_end=True)
        return self._received(begun, size)[:size]

    def _read_pieces(self, received: bytes) -> bytes:
        """Return a body sent in pieces (RFC 9112, 7.1)."""
        body = b""
        while True:
            while b"\r\n" not in received:
                received = self._received(received, len(received) + 1)
            line, _, received = received.partition(b"\r\n")
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                size = -1
            if size < 0 or len(body) + size > LIMIT:
                raise RemoteProtocolError(f"{self.endpoint}: {line[:20]!r} is no size of a piece")
            if size == 0:
                return body
            received = self._received(received, size + 2)
            body += received[:size]
            received = received[size + 2 :]

    def _received(self, received: bytes, size: int, *, may_end: bool = False) -> bytes:
        """Return ``received`` and what follows it, ``size`` bytes at least."""
        if size > LIMIT + 2 and not may_end:
            raise RemoteProtocolError(f"{self.endpoint}: an answer of {size} bytes is too long")
        buffer = memoryview(bytearray(64 << 10))
        while len(received) < size:
            try:
                self._stream.settimeout(self._patience_s())
                count = self._stream.recv_into(buffer)
            except TimeoutError:
                raise TimedOut(f"{self.endpoint}: stalled in an answer") from None
            except OSError as error:
                raise Unreachable(f"{self.endpoint}: {error.strerror or error}") from None
            if not count and may_end:
                return received
            if not count:
                raise Unreachable(f"{self.endpoint}: connection closed in an answer")
            received += buffer[:count]
        if may_end:
            raise RemoteProtocolError(f"{self.endpoint}: an answer without end")
        return received
