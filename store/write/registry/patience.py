"""How long to go on asking."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

from store.errors import RemoteBusy, RemoteError, TimedOut
from store.read.retry import FIRST_WAIT_S, LONGEST_WAIT_S, Outage, pause_before


class Patience:
    """How long to go on after errors: waits double, up to a limit without any progress."""

    def __init__(
        self,
        limit_s: float,
        what: str,
        pause: Callable[[float], object] = sleep,
        outage: Outage | None = None,
    ) -> None:
        """Be patient for ``limit_s``; ``pause`` waits for seconds, and may raise instead.

        ``outage`` is told of each failure, and may raise too.
        """
        self._outage = outage
        self._pause = pause
        self._limit_s = limit_s
        self._what = what
        self.got_on()

    def got_on(self) -> None:
        """Count from here on: there was progress."""
        self._begun = monotonic()
        self._deadline = self._begun + self._limit_s
        self._wait_s = FIRST_WAIT_S

    def wait_after(self, error: RemoteError) -> None:
        """Wait after an error, longer than after the last one, at least as long as it asks for.

        Raises:
            TimedOut: the limit ran out.
            RemoteError: ``error``, where asking again does not help.

        """
        if not error.retryable:
            raise error
        asked_s = error.retry_after_s if isinstance(error, RemoteBusy) else None
        pause_s = pause_before(self._deadline, self._wait_s, asked_s or 0.0)
        if pause_s < 0:
            raise TimedOut(
                f"{self._what}: no success within {self._limit_s:g} s, last: {error}"
            ) from None
        if self._outage is not None:
            self._outage.failed(error, monotonic() - self._begun, self._limit_s)
        self._pause(pause_s)
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)
