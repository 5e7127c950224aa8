"""A store in a repository of a registry: packs are blobs, read by ranges.

docs/format.md, "Store in a registry"; docs/decisions/0016-registry-store.md.
"""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic

from store.errors import AccessDenied, BootfsError, PackNotFound, RemoteError, RemoteProtocolError
from store.format.distribution import (
    MANIFEST_TYPE,
    blob_digest,
    document_digest,
    parse_repository_url,
    profiles_image,
    profiles_tag,
)
from store.format.http1 import Endpoint, ResponseHead, resolve_redirect
from store.read.connection import (
    CONNECT_LIMIT_S,
    STALL_LIMIT_S,
    Connection,
    Stale,
    open_connection,
)
from store.read.registryauth import Authorization, encode_own_get, names_authorization
from store.read.remote import (
    KEPT_CONNECTIONS,
    REDIRECT_LIMIT,
    STREAM_LIMIT_S,
    check_head,
    check_whole,
)
from store.read.retry import until_done

RENEWAL_LIMIT = 2
"""A token that has run out, and then credentials that were changed meanwhile."""
MOVED_LIMIT = 4096
"""Blobs of which it is remembered where the registry sends who asks for them."""
SHORT = 16 << 10
"""Bytes of an answer that are sooner read than another connection is made."""
REDIRECTS = (301, 302, 303, 307, 308)
MANIFEST_LIMIT = 1 << 20
"""Of the manifest of an image's profiles, which has a line for each."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from store.interfaces import Access
    from store.read.retry import Outage

    T = TypeVar("T")


class RegistrySource:
    """Packs, hot packs and profiles in the repository ``docker://HOST/REPOSITORY``.

    Other objects are not read here, and profiles are only streamed.
    """

    read_ahead = 128 << 10
    """As for any server over a network."""

    def __init__(
        self,
        url: str,
        read_limit_s: float,
        authorities: str = "",
        auth: str = "",
        access: Access | None = None,
        outage: Outage | None = None,
    ) -> None:
        """Keep where it is; ``access``, closed with the source, has the way and whom to trust.

        ``outage`` is told of failures that are tried again.
        """
        self.location = url
        self._access = access
        self._endpoint, repository = parse_repository_url(url)
        self._blobs = f"/v2/{repository}/blobs"
        self._manifests = f"/v2/{repository}/manifests"
        self._limit_s = read_limit_s
        self._outage = outage
        self._authorities = authorities
        self._authorization = self._open_authorization(repository, auth)
        self._lock = allocate_lock()
        self._idle: list[Connection] = []
        self._moved: dict[str, tuple[str, Endpoint]] = {}
        """Blob's target to target and server that the registry has redirected to."""

    def _open_authorization(self, repository: str, auth: str) -> Authorization:
        return Authorization(self._endpoint, repository, auth, self._authorities, self._access)

    def dial(self) -> None:
        """Connect now, and get a token where one is wanted; failure shows at the fetch."""
        try:
            deadline = monotonic() + CONNECT_LIMIT_S
            connection, head, begun = self._ask(self._endpoint, "/v2/", "", "", deadline)
            self._finish(connection, head, begun)
            if head.status == 401:
                challenge = head.fields.get("www-authenticate", "")
                self._authorization.renew("", 401, challenge, deadline)
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
            f"{self.location}: {name}",
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
        where = f"{self.location}: {name}"

        def read(connection: Connection, head: ResponseHead, begun: bytes) -> bytes:
            check_head(head, offset, size, where)
            return connection.read_body(begun, size, arrived)

        wanted = f"bytes={offset}-{offset + size - 1}"
        return self._read(self._blob(name), wanted, where, read, limit_s, patience_s)

    def stream(self, name: str, limit: int, arrived: Callable[[memoryview], None]) -> int:
        """Give ``arrived`` a whole object as it comes; see `Streaming`."""

        def read(connection: Connection, head: ResponseHead, begun: bytes) -> int:
            size = check_whole(head, limit, where)
            connection.read_stream(begun, size, arrived)
            return size

        where = f"{self.location}: {name}"
        image = profiles_image(name)
        blob = f"{self._blobs}/{self._find_document(image)}" if image else self._blob(name)
        wanted = f"bytes=0-{limit - 1}"
        return self._read(blob, wanted, where, read, STREAM_LIMIT_S, self._limit_s)

    def _blob(self, name: str) -> str:
        """Return the target of the blob that an object is.

        Raises:
            PackNotFound: an object of this name is no blob.

        """
        digest = blob_digest(name)
        if not digest:
            raise PackNotFound(
                f"{self.location}: {name}: a registry's blobs are packs, and this is no pack's name"
            )
        return f"{self._blobs}/{digest}"

    def _find_document(self, image: bytes) -> str:
        """Return the digest of the blob that has an image's profiles, by their tag.

        Raises:
            PackNotFound: there are none.
            BootfsError: as `fetch`.

        """
        tag = profiles_tag(image)
        where = f"{self.location}:{tag}"

        def read(connection: Connection, head: ResponseHead, begun: bytes) -> bytes:
            size = check_whole(head, MANIFEST_LIMIT, where)
            return connection.read_body(begun, size, None)

        limit_s = self._limit_s
        target = f"{self._manifests}/{tag}"
        data = self._read(target, "", where, read, limit_s, limit_s, MANIFEST_TYPE)
        # Here, since a start of an image without profiles needs no JSON.
        from store.read.jsontext import parse_json_object

        try:
            manifest = parse_json_object(data)
        except ValueError as error:
            raise RemoteProtocolError(f"{where}: not a manifest: {error}") from None
        return document_digest(manifest, image, where)

    def _read(
        self,
        target: str,
        wanted: str,
        where: str,
        read: Callable[[Connection, ResponseHead, bytes], T],
        limit_s: float,
        patience_s: float,
        accepted: str = "",
    ) -> T:
        """Ask for something; return what ``read`` makes of the answer and its body.

        ``wanted`` is a Range, ``accepted`` the media type of a manifest; empty for none.
        """
        deadline = monotonic() + limit_s
        begins = monotonic() + min(limit_s, patience_s)
        # A manifest's tag may have moved on, which who was redirected to does not know.
        moved = None if accepted else self._ask_moved(target, wanted, begins)
        connection, head, begun = moved or self._ask_registry(target, wanted, begins, accepted)
        is_kept = False
        try:
            if head.status == 407 and self._access is not None:
                # Who changes the file is let in by the next read.
                self._access.renew(self._access.generation)
                refusal = self._access.refusal(connection.endpoint, head, where, bytes)
                if refusal is not None:
                    raise refusal
            connection.deadline = deadline
            connection.stall_limit_s = min(STALL_LIMIT_S, patience_s)
            result = read(connection, head, begun)
            is_kept = head.keeps_alive
        except BootfsError:
            # The next try asks the registry where to, whoever it was.
            self._moved.pop(target, None)
            raise
        finally:
            if not is_kept:
                connection.close()
        self._keep(connection)
        return result

    def _ask_moved(
        self, blob: str, wanted: str, begins: float
    ) -> tuple[Connection, ResponseHead, bytes] | None:
        """Ask where the registry sent us for this blob before; None where that is no use any more.

        Such an address is good for some minutes or hours; then the registry gives another.
        """
        place = self._moved.get(blob)
        if place is None:
            return None
        now = monotonic()
        try:
            target, server = place
            # Where it is silent by now, there has to be time for the registry.
            half = now + (begins - now) / 2
            connection, head, begun = self._ask(server, target, wanted, "", half)
        except RemoteError:
            self._moved.pop(blob, None)
            return None
        if head.status in (200, 206, 416):
            return connection, head, begun
        self._finish(connection, head, begun)
        self._moved.pop(blob, None)
        return None

    def _ask_registry(
        self, blob: str, wanted: str, begins: float, accepted: str
    ) -> tuple[Connection, ResponseHead, bytes]:
        """Ask the registry, let in by it, and whom it sends us to; return an answer.

        Raises:
            AccessDenied: it lets nobody in with these credentials.
            RemoteError: no answer, or one redirect too many.

        """
        renewals = 0
        while True:
            header = self._authorization.header
            connection, head, begun = self._follow(blob, wanted, header, begins, accepted)
            if head.status not in (401, 403) or not self._is_ours(connection.endpoint):
                return connection, head, begun
            told = connection.told
            self._finish(connection, head, begun)
            renewals += 1
            if renewals <= RENEWAL_LIMIT and self._is_other_now(told, head):
                continue
            if renewals > RENEWAL_LIMIT:
                raise AccessDenied(
                    f"{self.location}: {head.status}, the registry refuses the token that it gave; "
                    f"{self._authorization.tried}"
                )
            challenge = head.fields.get("www-authenticate", "")
            self._authorization.renew(header, head.status, challenge, begins)

    def _is_other_now(self, told: int, head: ResponseHead) -> bool:
        """Whether to ask the registry again: the file ``http`` is not as it was ``told`` by.

        Raises:
            AccessDenied: it has not, and it is what the registry refuses.

        """
        access = self._access
        if access is None:
            return False
        if access.renew(told):
            return True
        if names_authorization(access.fields(self._endpoint, "", 0, 0)):
            refusal = access.refusal(self._endpoint, head, self.location, bytes)
            if refusal is not None:
                raise refusal
        return False

    def _follow(
        self, blob: str, wanted: str, header: str, begins: float, accepted: str
    ) -> tuple[Connection, ResponseHead, bytes]:
        """Ask for a blob, and where the registry redirects to; without credentials there."""
        target, server = blob, self._endpoint
        for _ in range(REDIRECT_LIMIT + 1):
            sent = header if self._is_ours(server) else ""
            connection, head, begun = self._ask(server, target, wanted, sent, begins, accepted)
            if head.status not in REDIRECTS:
                if not self._is_ours(server) and head.status in (200, 206):
                    self._remember(blob, target, server)
                return connection, head, begun
            self._finish(connection, head, begun)
            target, server = resolve_redirect(server, target, head.fields.get("location", ""))
        raise RemoteProtocolError(f"{self.location}: more than {REDIRECT_LIMIT} redirects")

    def _is_ours(self, server: Endpoint) -> bool:
        ours = self._endpoint
        return (server.scheme, server.authority) == (ours.scheme, ours.authority)

    def _remember(self, blob: str, target: str, server: Endpoint) -> None:
        with self._lock:
            if len(self._moved) >= MOVED_LIMIT:
                self._moved.clear()
            self._moved[blob] = target, server

    def _ask(
        self,
        server: Endpoint,
        target: str,
        wanted: str,
        header: str,
        begins: float,
        accepted: str = "",
    ) -> tuple[Connection, ResponseHead, bytes]:
        """Send one request; return the connection, which the caller closes or keeps, and answer."""
        while True:
            connection = self._take(server, begins)
            try:
                head, begun = connection.request(
                    encode_own_get(connection, target, header, wanted, accepted)
                )
            except Stale:
                # Says nothing about the server: it only tired of an idle connection.
                connection.close()
                continue
            except BaseException:
                connection.close()
                raise
            return connection, head, begun

    def _finish(self, connection: Connection, head: ResponseHead, begun: bytes) -> None:
        """Keep a connection whose answer is not of interest, where the rest of that is short."""
        size = head.content_length
        is_plain = "transfer-encoding" not in head.fields
        if not is_plain or size is None or not len(begun) <= size <= SHORT or not head.keeps_alive:
            connection.close()
            return
        try:
            connection.read_body(begun, size, None)
        except RemoteError:
            connection.close()
            return
        self._keep(connection)

    def _open(self, server: Endpoint, deadline: float) -> Connection:
        return open_connection(server, deadline, self._authorities, self._access)

    def _take(self, server: Endpoint, deadline: float) -> Connection:
        with self._lock:
            for number, kept in enumerate(self._idle):
                at = kept.endpoint
                if (at.scheme, at.authority) == (server.scheme, server.authority):
                    del self._idle[number]
                    kept.deadline = deadline
                    kept.stall_limit_s = STALL_LIMIT_S
                    return kept
        return self._open(server, deadline)

    def _keep(self, connection: Connection) -> None:
        # It may be closed while it is idle, even where nothing was asked of it yet.
        connection.used = True
        with self._lock:
            self._idle.append(connection)
            surplus = self._idle.pop(0) if len(self._idle) > KEPT_CONNECTIONS else None
        if surplus is not None:
            surplus.close()
