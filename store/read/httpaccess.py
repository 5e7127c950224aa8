"""What HTTP servers are told of the user, by which proxy they are reached, and whom TLS trusts.

Imported only where the user has given credentials; docs/stores/http.md.
"""

from __future__ import annotations

from _thread import allocate_lock

from store.errors import AccessDenied
from store.format.httpaccess import EVERY, origin, parse_http_access, parse_proxy
from store.read.authfiles import AuthDirectory, AuthFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.errors import BootfsError
    from store.format.http1 import Endpoint, ResponseHead
    from store.format.httpaccess import Proxy


class HttpAccess:
    """Credentials, proxies and authorities of the files ``http`` and ``ca.crt``; an `Access`."""

    def __init__(self, auth: str, proxy_of: Callable[[str], str] | None = None) -> None:
        """Read the files of directory ``auth``.

        ``proxy_of`` returns the URL of the proxy to an origin that the file has none for,
        or nothing.

        Raises:
            AccessDenied: one of them cannot be read, or is malformed.

        """
        self._directory = AuthDirectory(auth)
        self._file = AuthFile(self._directory, "http")
        self._authorities_file = AuthFile(self._directory, "ca.crt")
        self._proxy_of = proxy_of
        self._lock = allocate_lock()
        """For who reads the files again; nobody waits for the network with it."""
        self.generation = 0
        self.authorities_path = self._authorities_file.path
        self._read()

    def close(self) -> None:
        """Let the directory go."""
        self._directory.close()

    def fields(self, endpoint: Endpoint, target: str, offset: int, size: int) -> str:
        """Return the header fields that tell ``endpoint`` who asks."""
        return self._table.fields.get(origin(endpoint), "")

    def proxy(self, endpoint: Endpoint) -> Proxy | None:
        """Return the proxy by which ``endpoint`` is reached.

        Raises:
            AccessDenied: the environment names one that is none.

        """
        key = origin(endpoint)
        proxies = self._table.proxies
        if key in proxies or EVERY in proxies:
            return proxies.get(key, proxies.get(EVERY))
        url = self._proxy_of(key) if self._proxy_of is not None else ""
        return parse_proxy(url, "the environment's proxy") if url else None

    def renew(self, told: int) -> bool:
        """Read the files again where they have changed; see `Access`.

        Raises:
            AccessDenied: as when they were read first; what was read before stays.

        """
        with self._lock:
            # Somebody else may have read them since the request that was refused.
            if told == self.generation and self._has_changed():
                self._read()
            return told != self.generation

    def _has_changed(self) -> bool:
        return self._file.has_changed() or self._authorities_file.has_changed()

    def refusal(
        self, endpoint: Endpoint, head: ResponseHead, where: str, body: Callable[[], bytes]
    ) -> BootfsError | None:
        """Return the error that an answer to object ``where`` means for who has credentials."""
        status = head.status
        if status == 407:
            proxy = self.proxy(endpoint)
            named = f" named in {proxy.where}" if proxy is not None else ""
            return AccessDenied(f"{where}: 407; the proxy{named} wants other credentials")
        if status not in (401, 403):
            return None
        place = self._table.places.get(origin(endpoint))
        if place is None:
            return AccessDenied(
                f"{where}: {status}; the server refuses access, "
                f"and {self._file.path} has no line for {origin(endpoint)}"
            )
        return AccessDenied(
            f"{where}: {status}; the server refuses the credentials of {self._file.path}, {place}"
        )

    def _read(self) -> None:
        table = self._file.parsed(parse_http_access)
        self.authorities = self._authorities_file.parsed(_as_it_is)
        self._table = table
        self.generation += 1


def _as_it_is(text: str, path: str) -> str:
    return text
