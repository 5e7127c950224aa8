"""A process that keeps PID 1's files open while the kernel ends the container.

When PID 1 is killed, the kernel first closes its files, and with them goes every
lease; only then it kills the container's other processes.  Who waited for a file
would read zeros in between.  The keeper has the very same table of open files, which
is closed when the last one that has it ends; by then the others are being killed too.

It also looks after a PID 1 that was stopped, as `docker kill -s STOP` does: nobody would fill
files, and after a while the kernel lets in who waits.
"""

from __future__ import annotations

import os
from _signal import SIGCONT, SIGSTOP, sigtimedwait

from boot.log import log
from boot.supervise import ALL_SIGNALS, send
from boot.syscalls import PR_SET_DUMPABLE, PR_SET_NAME, fork_sharing_files, prctl

WATCH_S = 10.0
"""So often it looks, or four times as often as the kernel takes leases away, if that is less."""


class Keeper:
    """The process; it takes the place that the daemon has in other modes.

    See `boot.supervise.Daemon`.
    """

    __slots__ = ("_pids", "_processes", "_watch_s", "_workload", "pid", "wanted")

    def __init__(self, pids: set[int], workload: int, processes: int, break_time_s: float) -> None:
        """Start it.  ``pids`` gets its process id, for as long as it lives.

        ``processes`` is an open /proc; ``break_time_s`` see `boot.lease.leases`.
        """
        self.wanted = False
        self._pids = pids
        self._workload = workload
        self._processes = processes
        self._watch_s = min(WATCH_S, break_time_s / 4)
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
            _keep(self._workload, self._processes, self._watch_s)
        self.wanted = False
        self.pid = pid
        self._pids.add(pid)

    def settle(self) -> None:
        """Do nothing: it ends with the container."""


def _keep(workload: int, processes: int, watch_s: float) -> None:
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_NAME, b"bootfs-keeper\0")
    while True:
        # All are blocked, and of no interest here; SIGKILL ends it.
        if sigtimedwait(ALL_SIGNALS, watch_s) is not None or not _is_stopped(1, processes):
            continue
        # Who stopped PID 1 meant the workload.  PID 1 does not forward this SIGCONT.
        for process, number in ((workload, SIGSTOP), (1, SIGCONT)):
            try:
                send(process, number, processes)
            except OSError as error:
                log(f"cannot signal process {process}: {error.strerror}")


def _is_stopped(process: int, processes: int) -> bool:
    fd = os.open(f"{process}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=processes)
    try:
        # The name in parentheses may hold anything, parentheses too.
        return os.read(fd, 4096).rpartition(b") ")[2][:1] == b"T"
    finally:
        os.close(fd)
