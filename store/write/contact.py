"""The first contact with a server: who mistyped its name does not wait for long."""

from __future__ import annotations

from collections.abc import Callable

from store.errors import NotReached, RemoteError
from store.read.retry import Outage

CONTACT_LIMIT_S = 2.5
"""So long nobody may be there: with the pause that it ends in, 5 s."""


class Contact(Outage):
    """Ends the tries where a server was never reached; else says once that it fails.

    A server that was there a moment ago, and is started again, is waited for.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        super().__init__(log)
        self._was_made = False

    def failed(self, error: RemoteError, since_s: float, limit_s: float) -> None:
        """Take in a failure; see `Outage`.

        Raises:
            NotReached: ``error``, when nobody was ever there.

        """
        is_nobody = isinstance(error, NotReached)
        if is_nobody and not self._was_made and since_s >= CONTACT_LIMIT_S:
            raise error
        # Whoever is only busy is there.
        self._was_made = self._was_made or not is_nobody
        super().failed(error, since_s, limit_s)

    def worked(self) -> None:
        """Take in that it was reached."""
        self._was_made = True
        super().worked()
