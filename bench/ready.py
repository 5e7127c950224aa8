"""Run commands, and to the moment that every start is measured up to: the line READY."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LIMIT_S = 600.0
"""A command that is not over by then is ended: it hangs."""


@dataclass(frozen=True)
class Run:
    """A command run up to its first `READY`."""

    seconds: float
    """From its start until the line had arrived here."""
    at: float
    """time.monotonic() of that moment."""


def run_checked(command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed.

    Raises:
        RuntimeError: it failed; the message holds what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


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
        limit = threading.Timer(LIMIT_S, process.terminate)
        limit.start()
        try:
            for printed in process.stdout:
                if printed.strip() == b"READY":
                    ready = time.monotonic()
                    on_ready()
                    process.stdout.read()
                    break
            said = process.stderr.read().decode(errors="replace")
        finally:
            limit.cancel()
    if ready is None:
        raise RuntimeError(f"{what} ended before it was READY:\n{said}")
    if process.returncode != 0:
        raise RuntimeError(f"{what} was READY, but exited {process.returncode}:\n{said}")
    return Run(ready - begun, ready)
