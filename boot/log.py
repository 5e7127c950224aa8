"""Lines for whoever reads the container's log: one a fact, on stderr, never twice."""

from __future__ import annotations

import os

SEEN_LIMIT = 1000
"""Different lines of one process; a store that fails in new words each time ends here."""

_seen: set[str] = set()


def log(message: str) -> None:
    """Write ``message`` as one line to stderr, unless this process has written it before."""
    if message in _seen or len(_seen) >= SEEN_LIMIT:
        return
    _seen.add(message)
    line = "bootfs: " + message.replace("\n", " ") + "\n"
    try:
        os.write(2, line.encode("utf-8", "surrogateescape"))
    except OSError:
        # The container's log is gone; the workload is not ours to end for that.
        return
