"""Asking again: back-off with jitter under one limit for the whole of it."""

from __future__ import annotations

import os
from time import monotonic, sleep

from store.errors import IntegrityError, RemoteBusy, RemoteError, TimedOut

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
QUIET_S = 3.0
"""So long a store may fail without a line about it: one that is started again takes a moment."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")


def jittered(wait_s: float) -> float:
    """Return ``wait_s`` shortened at random by up to a half: others wait for the same."""
    return wait_s * (1 - os.urandom(1)[0] / 512)


def pause_before(deadline: float, wait_s: float, asked_s: float = 0.0) -> float:
    """Return how long to wait before asking again; -1.0 where that is no use by ``deadline``.

    That is about ``wait_s``, less towards the end, which so gets several tries, and
    ``asked_s`` at least, which the other side wants.
    """
    left_s = deadline - monotonic()
    pause_s = max(jittered(min(wait_s, left_s / 2)), asked_s)
    return pause_s if pause_s < left_s and left_s > FIRST_WAIT_S else -1.0


class Outage:
    """Says once that a store fails, for all who wait for it together."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._is_told = False

    def failed(self, error: RemoteError, since_s: float, limit_s: float) -> None:
        """Take in a failure that will be tried again, ``since_s`` after the first try.

        ``limit_s`` is how long it is tried in all.
        """
        if since_s >= QUIET_S and not self._is_told:
            self._is_told = True
            self._log(f"{error}; asked again, each time for {limit_s:g} s at most")

    def worked(self) -> None:
        """Be ready for the next time that it fails."""
        self._is_told = False


def until_done(
    attempt: Callable[[float], T], limit_s: float, what: str, outage: Outage | None = None
) -> T:
    """Return what ``attempt`` returns, trying again while its errors are retryable.

    ``attempt`` gets the seconds that are left.  Waits double from 0.1 s to 5 s,
    each shortened at random by up to a half so that containers started together
    do not ask together, and towards the end by more; a server's Retry-After is kept
    when it is longer.  Wrong bytes are asked for once more: they may be wrong only on
    their way, or at one of many servers behind the address.  ``outage`` is told how it goes.

    Raises:
        TimedOut: the limit ran out; the message carries the last error.
        BootfsError: ``attempt`` raised one that asking again cannot help.

    """
    begun = monotonic()
    deadline = begun + limit_s
    wait_s = FIRST_WAIT_S
    was_damaged = False
    while True:
        try:
            done = attempt(max(deadline - monotonic(), 0.001))
        except RemoteError as error:
            if not error.retryable:
                raise
            asked_s = error.retry_after_s if isinstance(error, RemoteBusy) else None
            pause_s = pause_before(deadline, wait_s, asked_s or 0.0)
            if pause_s < 0:
                raise TimedOut(f"{what}: no success within {limit_s:g} s, last: {error}") from None
            if outage is not None:
                outage.failed(error, monotonic() - begun, limit_s)
        except IntegrityError:
            if was_damaged:
                raise
            was_damaged = True
            pause_s = 0.0
        else:
            if outage is not None:
                outage.worked()
            return done
        sleep(pause_s)
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)
