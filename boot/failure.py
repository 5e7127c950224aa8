"""Say, in one line, why a container has no workload."""

from __future__ import annotations

import os
from errno import EIO

from boot.log import explained, log
from store.errors import BootError, BootfsError


def report(error: Exception) -> int:
    """Log why the boot failed; return the exit code that says it to the engine."""
    if isinstance(error, BootError):
        log(str(error))
        return error.exit_code
    if isinstance(error, BootfsError):
        log(str(error))
    elif reason := explained(error):
        log(f"boot failed: {reason}")
    elif not isinstance(error, OSError):
        log(f"boot failed by a fault of bootfs: {error!r}")
    elif error.errno != EIO:
        name = error.filename
        shown = os.fsdecode(name) if isinstance(name, bytes) else name
        log(f"boot failed: {error.strerror} ({shown})")
    # EIO is content that cannot be had: the daemon has said which, and why.
    return BootError.exit_code
