"""Asking again: back-off with jitter under one limit for the whole of it."""

from __future__ import annotations

import os
from time import monotonic, sleep

from store.errors import IntegrityError, RemoteBusy, RemoteError, TimedOut

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def jittered(wait_s: float) -> float:
    """Return ``wait_s`` shortened at random by up to a half: others wait for the same."""
    return wait_s * (1 - os.urandom(1)[0] / 512)


def until_done(attempt: Callable[[float], bytes], limit_s: float, what: str) -> bytes:
    """Return what ``attempt`` returns, trying again while its errors are retryable.

    ``attempt`` gets the seconds that are left.  Waits double from 0.1 s to 5 s,
    each shortened at random by up to a half so that containers started together
    do not ask together; a server's Retry-After is kept when it is longer.  Wrong bytes
    are asked for once more: they may be wrong only on their way, or at one of many
    servers behind the address.

    Raises:
        TimedOut: the limit ran out; the message carries the last error.
        BootfsError: ``attempt`` raised one that asking again cannot help.

    """
    deadline = monotonic() + limit_s
    wait_s = FIRST_WAIT_S
    was_damaged = False
    while True:
        try:
            return attempt(max(deadline - monotonic(), 0.001))
        except RemoteError as error:
            if not error.retryable:
                raise
            pause_s = jittered(wait_s)
            if isinstance(error, RemoteBusy) and error.retry_after_s is not None:
                pause_s = max(pause_s, error.retry_after_s)
            if monotonic() + pause_s >= deadline:
                raise TimedOut(f"{what}: no success within {limit_s:g} s, last: {error}") from None
        except IntegrityError:
            if was_damaged:
                raise
            was_damaged = True
            pause_s = 0.0
        sleep(pause_s)
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)
