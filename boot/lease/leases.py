"""File leases: the kernel makes who opens a file wait, and tells us (fcntl(2), "Leases").

Under a write lease nobody else has the file open.  An open(2), execve(2) or truncate(2) of
it blocks, in every process on the machine, and the lease's owner gets a signal with the
descriptor's number.  It ends the wait by closing the descriptor.  Not by F_UNLCK: the
file would still be open for writing for a moment, and an execve that waited fails with
ETXTBSY then.

The kernel takes a lease away when `break_time_s` is over; who waits would then read what is
there, which is zeros.  boot/lease/filler.py sees to it that nobody reads then.

Who opens with O_NONBLOCK is told EAGAIN instead; he asks in vain until the file is filled.
"""

from __future__ import annotations

import fcntl
import os
from struct import Struct

from boot.syscalls import act_on_files_as, open_signals

SIGNAL = 64
"""SIGRTMAX: it carries the descriptor, and many can be queued."""
_F_SETSIG = 10
_F_SETLEASE, _F_GETLEASE = 1024, 1025
"""asm-generic/fcntl.h, linux/fcntl.h."""
_SIGNAL_INFO = Struct("<IiiIIiI100x")
"""struct signalfd_siginfo: signal, errno, code, pid, uid, fd, and what is not needed."""
_READ = 64 * _SIGNAL_INFO.size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def take_lease(fd: int, owner: int = 0) -> None:
    """Take a write lease on an open file that nobody else has open, and which is ``owner``'s.

    Raises:
        OSError: the file system has no leases, or somebody has it open.

    """
    fcntl.fcntl(fd, _F_SETSIG, SIGNAL)
    if not owner:
        fcntl.fcntl(fd, _F_SETLEASE, fcntl.F_WRLCK)
        return
    # Without CAP_LEASE only on one's own files; this thread is root again at once.
    act_on_files_as(owner)
    try:
        fcntl.fcntl(fd, _F_SETLEASE, fcntl.F_WRLCK)
    finally:
        act_on_files_as(0)


def is_wanted(fd: int) -> bool:
    """Whether somebody waits for the lease on ``fd``, or it has been taken away."""
    return fcntl.fcntl(fd, _F_GETLEASE) != fcntl.F_WRLCK


def break_time_s() -> float:
    """Return for how long the kernel lets somebody wait."""
    with open("/proc/sys/fs/lease-break-time", "rb", buffering=0) as file:
        return float((file.readall() or b"45").strip())


class Signals:
    """The signals of all leases of this process."""

    def __init__(self) -> None:
        """Begin to collect them; `SIGNAL` is blocked in all threads."""
        self._fd = open_signals(SIGNAL)

    def iter_wanted(self) -> Iterator[int | None]:
        """Yield, for ever, the descriptors of files that somebody waits for; None for another's.

        None is a signal that somebody sent, and that is not about a lease.
        """
        while True:
            data = os.read(self._fd, _READ)
            for number, _errno, code, _pid, _uid, fd, _ in _SIGNAL_INFO.iter_unpack(data):
                yield fd if number == SIGNAL and code > 0 else None
