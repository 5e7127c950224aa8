"""What a store is to those who read it and to those who write it.

For type checkers and the converter; the boot path names these types and never
imports them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from store.errors import BootfsError
    from store.format.http1 import Endpoint, ResponseHead
    from store.format.httpaccess import Proxy


class Source(Protocol):
    """Where objects are read from, by ranges.  May be used by many threads at once."""

    location: str
    """As the user wrote it, for messages."""
    read_ahead: int
    """Bytes that arrive in the time one request takes: so many more are worth a guess."""

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        """Return exactly ``size`` bytes of object ``name`` from ``offset``.

        Not verified: a caller knows the digest.  ``arrived`` is called with all
        bytes there are so far, at least once when they are all there; on another
        try it may see fewer bytes than before, and others.

        Raises:
            PackNotFound: the store has no object of this name.
            AccessDenied: it may not be read.
            RemoteError: no answer, or a wrong one, after the retries.
            SizeMismatch: the object ends before that.

        """

    def dial(self) -> None:
        """Prepare for a fetch to come, where that takes time; never raises."""

    def close(self) -> None:
        """Let go of what is open; no fetch may be under way or follow."""


class Streaming(Source, Protocol):
    """A source that gives whole objects while they come, too."""

    def stream(self, name: str, limit: int, arrived: Callable[[memoryview], None]) -> int:
        """Give ``arrived`` all bytes of object ``name``, each once and in order, as they come.

        Returns how many there were.  By one try; those that have come were not verified.
        What ``arrived`` gets is used again when it returns.

        Raises:
            PackNotFound, AccessDenied, RemoteError: as `fetch`.
            SizeMismatch: there are more than ``limit``.

        """


class Mirror(Streaming, Protocol):
    """A source that can be one of several with the same objects (store/read/mirrors.py)."""

    def fetch_once(
        self,
        name: str,
        offset: int,
        size: int,
        arrived: Callable[[memoryview], None] | None,
        limit_s: float,
        patience_s: float,
    ) -> bytes:
        """Do what `fetch` does, in ``limit_s`` and by one try.

        That is given up where the body does not begin within ``patience_s``, or where
        nothing more of it comes for so long.
        """


class Ahead(Protocol):
    """Who brings chunks that nobody has asked for yet (store/read/hotpack.py)."""

    def wait_until_decided(self) -> None:
        """Return when it has told what it brings, or soon."""

    def patience_s(self, chunk: int) -> float:
        """Return how long a reader of ``chunk`` should wait for it; 0: it should fetch it."""

    def missed(self) -> None:
        """Hear that a reader has waited in vain, and fetches for itself."""


class Aside(Protocol):
    """Where chunks lie that came before anybody asked; used by many threads at once."""

    def put(self, chunk: int, plain: bytes) -> bool:
        """Keep a chunk's plain bytes; whether there was room."""

    def has(self, chunk: int) -> bool:
        """Whether it was kept."""

    def get(self, chunk: int) -> bytes | None:
        """Return what was kept, not verified again; None where nothing is, or it is gone."""


class Access(Protocol):
    """What HTTP servers are told of the user, and the way to them; used by many threads."""

    generation: int
    """How often it was read."""
    authorities: str
    """Certificates in PEM form that are trusted beside those of the machine."""
    authorities_path: str
    """Where they come from, for messages."""

    def fields(self, endpoint: Endpoint, target: str, offset: int, size: int) -> str:
        """Return header fields, each with its line's end, of the request for a range.

        What is meant for one server is never told to another, redirected to or not.
        """

    def proxy(self, endpoint: Endpoint) -> Proxy | None:
        """Return the proxy by which a server is reached.

        Raises:
            AccessDenied: what names it is malformed.

        """

    def renew(self, told: int) -> bool:
        """Read again what has changed since; whether that is of another generation than ``told``.

        Raises:
            AccessDenied: it cannot be read, or is malformed.

        """

    def refusal(
        self, endpoint: Endpoint, head: ResponseHead, where: str, body: Callable[[], bytes]
    ) -> BootfsError | None:
        """Return the error that an answer means, None where it is not about who asked.

        ``where`` names the object, ``body`` reads what the server says about it.
        """

    def close(self) -> None:
        """Let go of what is open."""


class Objects(Protocol):
    """The objects of a store, to be read whole."""

    location: str
    """As the user wrote it, for messages."""

    def fetch(self, name: str, offset: int, size: int) -> bytes:
        """Return bytes of an object; see `Source`."""

    def size(self, name: str) -> int:
        """Return the object's size; see `Backend`."""

    def close(self) -> None:
        """Let go of what is open."""


class Listing(Objects, Protocol):
    """Objects, and which there are; see `Backend`."""

    def check(self) -> None:
        """Return when a store is there, or nothing that is in its place."""

    def has(self, name: str) -> bool:
        """Whether the object exists."""

    def iter_names(self, prefix: str) -> Iterator[str]:
        """Yield the names below ``prefix``, sorted."""


class Backend(Source, Protocol):
    """Read-write access to the objects of one store.

    Objects are immutable: a name is written once, and appears whole or not at all.
    """

    def check(self) -> None:
        """Return when a store is there, or nothing that keeps `create` from making one.

        Changes nothing: for before a long conversion.

        Raises:
            UsageError: something else is in its place.
            NotFound: there is no such place, and it is not ours to make (a bucket).

        """

    def create(self) -> None:
        """Make the store where there is none yet; do nothing where there is one.

        Raises:
            UsageError: something else is in its place.

        """

    def has(self, name: str) -> bool:
        """Whether the object exists."""

    def size(self, name: str) -> int:
        """Return the object's size in bytes.

        Raises:
            PackNotFound: there is none of this name.

        """

    def iter_names(self, prefix: str) -> Iterator[str]:
        """Yield the names below ``prefix`` (``packs/``), sorted."""

    def write(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object from its bytes in order; visible when all of them are safe.

        Writing a name that exists makes it young (see `refresh`) and uses no piece.
        Not to be called by who holds the store.

        Raises:
            StorageFull: no space is left; nothing of it remains.
            AccessDenied: the store may not be written.

        """

    def replace(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object over a damaged one, which stays until all bytes are safe.

        What ``pieces`` raises leaves what was there.

        Raises:
            StorageFull, AccessDenied: as `write`.

        """

    def refresh(self, name: str) -> bool:
        """Make an object young again, so that no collection takes it soon; whether it exists.

        Not to be called by who holds the store.

        Raises:
            AccessDenied: the store may not be written.

        """

    def age_s(self, name: str, now_s: float) -> float:
        """Return how long before ``now_s`` an object was written or refreshed.

        ``now_s`` is of this machine's clock, the other time of the store's.

        Raises:
            PackNotFound: there is none of this name.

        """

    def iter_unfinished(self) -> Iterator[str]:
        """Yield names of what is still being written, or was when its writer was killed, sorted.

        Good for `size`, `age_s` and `remove` alone.
        """

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, for good when this returns; those that do not exist are none.

        Raises:
            AccessDenied: the store may not be written.

        """

    def hold(self, *, alone: bool) -> AbstractContextManager[None]:
        """Keep others from committing and from removing, until the context is left.

        Those who commit an image hold the store with one another, who removes holds
        it ``alone``.  Waits for as long as it takes.  Where the store knows no locks,
        holding it with others does nothing.

        Raises:
            UsageError: to be ``alone`` is asked of a store without locks.
            AccessDenied: it may not be written.

        """
