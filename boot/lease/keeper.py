"""A process that keeps PID 1's files open while the kernel ends the container.

When PID 1 is killed, the kernel first closes its files, and with them goes every
lease; only then it kills the container's other processes.  Who waited for a file
would read zeros in between.  The keeper has the very same table of open files, which
is closed when the last one that has it ends; by then the others are being killed too.
"""

from __future__ import annotations

from _signal import sigwaitinfo

from boot.log import log
from boot.supervise import ALL_SIGNALS
from boot.syscalls import PR_SET_DUMPABLE, PR_SET_NAME, fork_sharing_files, prctl


class Keeper:
    """The process; it takes the place that the daemon has in other modes.

    See `boot.supervise.Daemon`.
    """

    __slots__ = ("_pids", "pid", "wanted")

    def __init__(self, pids: set[int]) -> None:
        """Start it.  ``pids`` gets its process id, for as long as it lives."""
        self.wanted = False
        self._pids = pids
        self.pid = 0
        self.start()

    def died(self, status: int) -> None:
        """Start another one: the workload may kill all processes it can see."""
        self._pids.discard(self.pid)
        self.pid = 0
        self.start()

    def start(self) -> None:
        """Start it; when there is no process to be had, leave it `wanted`."""
        try:
            pid = fork_sharing_files()
        except OSError as error:
            log(f"cannot start a process that keeps files ({error.strerror}); tried again")
            self.wanted = True
            return
        if not pid:
            _keep()
        self.wanted = False
        self.pid = pid
        self._pids.add(pid)

    def settle(self) -> None:
        """Do nothing: it ends with the container."""


def _keep() -> None:
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_NAME, b"bootfs-keeper\0")
    while True:
        # All are blocked, and of no interest here; SIGKILL ends it.
        sigwaitinfo(ALL_SIGNALS)
