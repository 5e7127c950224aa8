"""One input through one target, with the memory and the calls that it takes counted."""

from __future__ import annotations

import sys
import tracemalloc
from types import FrameType

from tests.fuzz.registry import STEPS_PER_BYTE, Target


class TooMuch(AssertionError):
    """An input took more than its target allows."""


def replay(target: Target, data: bytes) -> bool:
    """Return whether ``data`` is accepted.

    What it takes of time is counted in calls of functions, Python's and C's: no machine is
    too slow for them.

    Raises:
        TooMuch: it took more memory or calls than it may.
        AssertionError: a promise is broken.

    """
    limit = target.steps + STEPS_PER_BYTE * len(data)
    steps = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal steps
        steps += 1
        if steps == limit:
            raise TooMuch(f"{target.name}: more than {limit} calls for {len(data)} bytes")

    tracemalloc.start()
    sys.setprofile(count)
    try:
        is_accepted = target.check(data)
    finally:
        sys.setprofile(None)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    if steps >= limit:
        # Raised, and taken by somebody for an error of his own.
        raise TooMuch(f"{target.name}: {steps} calls for {len(data)} bytes")
    if most > target.memory:
        raise TooMuch(f"{target.name}: {most} bytes of memory for {len(data)} bytes")
    return is_accepted
