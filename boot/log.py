"""Lines for whoever reads the container's log: one a fact, on stderr, never twice."""

from __future__ import annotations

import os

SEEN_LIMIT = 1000
"""Different lines of one process; a store that fails in new words each time ends here."""

NO_PROCESS = (
    "no process or thread to be had: the container may have too few; give it a larger "
    "--pids-limit, 16 or more beside what the workload needs"
)

_seen: set[str] = set()


def explained(error: BaseException) -> str:
    """Return `NO_PROCESS` where that is what an error of the interpreter says, else nothing."""
    if isinstance(error, BlockingIOError) and error.filename is None:
        return NO_PROCESS  # what fork(2) gives
    return NO_PROCESS if str(error) == "can't start new thread" else ""


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
