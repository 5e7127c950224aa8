"""A store behind HTTP(S), read by ranges over connections that are kept.

A client of its own because the common ones cost 50-100 ms of imports at every
container start, and half the throughput (docs/decisions/0003-lean-http.md).
"""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic

from store.errors import (
    AccessDenied,
    BootfsError,
    PackNotFound,
    RemoteBusy,
    RemoteProtocolError,
    SizeMismatch,
    Unreachable,
)
from store.format.http1 import (
    Endpoint,
    ResponseHead,
    check_content_range,
    check_plain_body,
    object_size,
    parse_url,
    resolve_redirect,
)
from store.read.connection import CONNECT_LIMIT_S, Connection, Stale, open_connection
from store.read.retry import until_done

REDIRECTS = (301, 302, 303, 307, 308)
REDIRECT_LIMIT = 5
KEPT_CONNECTIONS = 16
STREAM_LIMIT_S = 3600.0
"""What is used while it comes may come for so long; a read has a limit of its own."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from store.interfaces import Access
    from store.read.retry import Outage

    T = TypeVar("T")


class HttpSource:
    """Objects at ``URL/NAME`` of an HTTP server that answers ranges."""

    read_ahead = 128 << 10
    """100 Mbit/s for 10 ms, or 1 Gbit/s for 1 ms."""

    def __init__(
        self,
        url: str,
        read_limit_s: float,
        authorities: str = "",
        access: Access | None = None,
        outage: Outage | None = None,
    ) -> None:
        """Keep where it is; ``access``, closed with the source, is what its servers are told.

        ``outage`` is told of failures that are tried again.
        """
        self.location = url
        self._endpoint = parse_url(url)
        self._limit_s = read_limit_s
        self._outage = outage
        self._authorities = authorities
        self._access = access
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
        if self._access is not None:
            self._access.close()

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        """Return exactly ``size`` bytes of object ``name``; see `Source`."""
        return until_done(
            lambda left_s: self.fetch_once(name, offset, size, arrived, left_s, left_s),
            self._limit_s,
            f"{self._endpoint}/{name}",
            self._outage,
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
        where = f"{self._endpoint}/{name}"

        def read(connection: Connection, head: ResponseHead, begun: bytes) -> bytes:
            check_head(head, offset, size, where)
            return connection.read_body(begun, size, arrived)

        return self._ask(name, offset, size, read, limit_s, patience_s)

    def stream(self, name: str, limit: int, arrived: Callable[[memoryview], None]) -> int:
        """Give ``arrived`` a whole object as it comes; see `Streaming`."""

        def read(connection: Connection, head: ResponseHead, begun: bytes) -> int:
            size = check_whole(head, limit, f"{self._endpoint}/{name}")
            connection.read_stream(begun, size, arrived)
            return size

        return self._ask(name, 0, limit, read, STREAM_LIMIT_S, self._limit_s)

    def _ask(
        self,
        name: str,
        offset: int,
        size: int,
        read: Callable[[Connection, ResponseHead, bytes], T],
        limit_s: float,
        patience_s: float,
    ) -> T:
        """Ask for a range; return what ``read`` makes of the answer and its body."""
        deadline = monotonic() + limit_s
        begins = monotonic() + min(limit_s, patience_s)
        where = f"{self._endpoint}/{name}"
        while True:
            connection = self._take(begins)
            is_kept = False
            try:
                target = f"{self._endpoint.path}/{name}"
                head, begun = connection.ask(target, offset, size)
                for _ in range(REDIRECT_LIMIT):
                    if head.status not in REDIRECTS or self._is_refused(head):
                        break
                    connection.close()
                    target, endpoint = resolve_redirect(
                        connection.endpoint, target, head.fields.get("location", "")
                    )
                    connection = self._open(endpoint, begins)
                    head, begun = connection.ask(target, offset, size)
                if self._is_refused(head) and self._is_other_now(connection, head, begun, where):
                    continue
                if head.status in REDIRECTS and "location" in head.fields:
                    raise RemoteProtocolError(f"{where}: more than {REDIRECT_LIMIT} redirects")
                if head.status in (401, 403) and self._access is None:
                    raise AccessDenied(
                        f"{where}: {head.status}; the server refuses access: mount a directory "
                        "with credentials, a file http, at /.bootfs/auth"
                    )
                connection.give(deadline, patience_s)
                result = read(connection, head, begun)
                is_kept = head.keeps_alive and connection.endpoint is self._endpoint
            except Stale:
                # Says nothing about the server: it only tired of an idle connection.
                continue
            finally:
                if not is_kept:
                    connection.close()
            self._keep(connection)
            return result

    def _is_refused(self, head: ResponseHead) -> bool:
        """Whether an answer may be about who asked, and somebody knows more about that."""
        if self._access is None:
            return False
        return 400 <= head.status < 500 or (
            head.status in REDIRECTS and "location" not in head.fields
        )

    def _is_other_now(
        self, connection: Connection, head: ResponseHead, begun: bytes, where: str
    ) -> bool:
        """Whether to ask again after a refusal, since credentials have changed.

        Raises:
            BootfsError: they have not, and the answer is about them.

        """
        access = self._access
        if access is None:
            return False
        if head.status not in (404, 410, 416) and access.renew(connection.told):
            return True
        refusal = access.refusal(
            connection.endpoint, head, where, lambda: connection.read_error(head, begun)
        )
        if refusal is not None:
            raise refusal
        return False

    def _open(self, endpoint: Endpoint, deadline: float) -> Connection:
        return open_connection(endpoint, deadline, self._authorities, self._access)

    def _take(self, deadline: float) -> Connection:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            return self._open(self._endpoint, deadline)
        connection.give(deadline)
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
    # Some servers that speak S3 give a range as 200, and say so in Content-Range.
    if head.status == 206 or "content-range" in head.fields:
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


def check_whole(head: ResponseHead, limit: int, where: str) -> int:
    """Return the size of an object, asked for up to ``limit`` bytes, whose body follows whole.

    Raises:
        SizeMismatch: it is larger than ``limit``.
        BootfsError: as `check_head`.

    """
    _check_status(head, 0, 0, where)
    check_plain_body(head)
    size = head.content_length
    total = object_size(head) if head.status == 206 or "content-range" in head.fields else size
    if size is None or total is None:
        raise RemoteProtocolError(f"{where}: the server does not say how long it is")
    if total > limit:
        raise SizeMismatch(where, limit, total)
    if "content-range" in head.fields:
        check_content_range(head, 0, total)
    return size


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
