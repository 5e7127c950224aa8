"""The client of one repository."""

from __future__ import annotations

from store.errors import NotFound, RemoteProtocolError
from store.write.registry.blobs import Blobs
from store.write.registry.lists import Lists, referrers_tag
from store.write.registry.uploads import try_upload


class Repository(Lists, Blobs):
    """One repository of a registry.  May be used by many threads at once; the caller closes it.

    Everything is asked again, with back-off, where that may help.
    """

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def check(self) -> None:
        """Return when there is a registry that lets us read, changing nothing.

        Raises:
            AccessDenied: it refuses.
            RemoteError: nobody answers, or what answers is no registry.

        """
        try:
            self._ask("GET", self._session.endpoint.api)
        except NotFound as error:
            raise RemoteProtocolError(
                f"{self.location}: what answers is no registry: it has no /v2/; check the address"
            ) from error

    def check_writable(self) -> None:
        """Return when blobs may be put here: an upload is opened and given up at once.

        Raises:
            AccessDenied: the repository may not be written.
            RemoteError: as `check`.

        """
        try_upload(self._session)


__all__ = ["Repository", "referrers_tag"]
