"""Stop every process of the container but this one, and let them go on."""

from __future__ import annotations

import os
from _signal import SIGCONT, SIGKILL, SIGSTOP
from errno import ENOENT, EPERM, ESRCH
from time import monotonic, sleep

from boot.log import log
from boot.supervise import send

GONE_LIMIT_S = 5.0
"""How long killed processes may take to be gone."""
_POLL_S = 0.01


class Freezer:
    """All processes of this PID namespace but PID 1, which the caller is, and some others."""

    def __init__(self, processes: int, spared: set[int]) -> None:
        """Stop nobody yet; ``processes`` is an open /proc, ``spared`` may change."""
        self._processes = processes
        self._spared = spared
        self._stopped: set[int] = set()

    @property
    def is_on(self) -> bool:
        """Whether somebody is stopped by this."""
        return bool(self._stopped)

    def stop(self) -> None:
        """Stop all that run; those that are stopped by others stay out of it.

        To be called again while it lasts: others may come in.
        """
        while True:
            found = False
            # One that was stopped between its start and being spared would keep all waiting.
            for pid in self._stopped & self._spared:
                self._send(pid, SIGCONT)
                self._stopped.discard(pid)
            for pid in self.pids():
                if pid in self._stopped or self._state(pid) in (b"T", b"t", b"Z", b""):
                    continue
                if self._send(pid, SIGSTOP):
                    self._stopped.add(pid)
                    found = True
            if not found:
                return

    def go_on(self) -> None:
        """Let those go on that `stop` has stopped."""
        for pid in self._stopped:
            self._send(pid, SIGCONT)
        self._stopped.clear()

    def kill(self) -> None:
        """Kill all and return when they are gone, or when they have had time enough for it."""
        deadline = monotonic() + GONE_LIMIT_S
        while monotonic() < deadline:
            others = self.pids()
            living = False
            for pid in others:
                if self._state(pid) not in (b"Z", b""):
                    living = True
                    self._send(pid, SIGKILL)
            if not living:
                return
            sleep(_POLL_S)

    def pids(self) -> list[int]:
        """Return the processes there are, but for this one and those that are spared."""
        found = [int(name) for name in os.listdir(self._processes) if name.isdigit()]
        return [pid for pid in found if pid != 1 and pid not in self._spared]

    def read(self, pid: int, name: str) -> bytes:
        """Return a file of /proc about a process; empty when it is gone."""
        try:
            fd = os.open(f"{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._processes)
        except OSError:
            return b""
        try:
            return os.read(fd, 1 << 16)
        except OSError:
            return b""
        finally:
            os.close(fd)

    def _state(self, pid: int) -> bytes:
        # The name in parentheses may hold anything, parentheses too.
        return self.read(pid, "stat").rpartition(b") ")[2][:1]

    def _send(self, pid: int, number: int) -> bool:
        """Send a signal; return whether there was somebody to get it."""
        try:
            send(pid, number, self._processes)
        except OSError as error:
            if error.errno in (ESRCH, ENOENT):
                return False
            if error.errno == EPERM:
                log(f"cannot signal process {pid}: add --cap-add KILL")
                return False
            raise
        return True
