"""Run a command until it prints READY: the moment that every start is measured up to."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """A command run up to its first `READY`."""

    seconds: float
    """From its start until the line had arrived here."""
    at: float
    """time.monotonic() of that moment."""


def run_until_ready(
    command: Sequence[str], what: str, on_ready: Callable[[], object] = lambda: None
) -> Run:
    """Run a command until it prints READY, and let it end.

    `on_ready` is called as soon as the clock has been read, while the command goes on.

    Raises:
        RuntimeError: `what` ended without having printed READY, or failed after it; the message
            holds what it said.
    """
    ready = None
    begun = time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        for printed in process.stdout:
            if printed.strip() == b"READY":
                ready = time.monotonic()
                on_ready()
                process.stdout.read()
                break
        said = process.stderr.read().decode(errors="replace")
    if ready is None:
        raise RuntimeError(f"{what} ended before it was READY:\n{said}")
    if process.returncode != 0:
        raise RuntimeError(f"{what} was READY, but exited {process.returncode}:\n{said}")
    return Run(ready - begun, ready)
