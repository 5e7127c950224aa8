"""What PID 1 owes its container: signals forwarded, orphans reaped, the daemon kept alive."""

from __future__ import annotations

import gc
import os
from _signal import (
    NSIG,
    SIGCHLD,
    SIGCONT,
    SIGIO,
    SIGKILL,
    SIGSTOP,
    SIGUSR1,
    SIGUSR2,
    sigtimedwait,
    sigwaitinfo,
)
from errno import ENOENT, ESRCH
from time import monotonic

from boot.log import log
from boot.status import ASKED
from boot.syscalls import set_real_uid

IDLE_DEATHS = 10
"""A daemon that dies so often in a row, without one answer or `SETTLED_S` between, is given up."""
HASTY_DEATHS = 3
"""After so many of these the next one waits for `RETRY_S`: the memory, say, may be there then."""
SETTLED_S = 10.0
"""A daemon that lived for so long was in order, even if nobody asked it for anything."""
RETRY_S = 1.0
"""Pause before a daemon is started again when there was no process to be had for it.

And when others have died so; shorter where a signal comes.
"""

SETTLE_LIMIT_S = 2.0
"""So long at most does a cold start's end wait for what the next start may want of the store."""

ALL_SIGNALS = frozenset(range(1, NSIG)) - {SIGKILL, SIGSTOP, 32, 33}
"""What the launcher has blocked, so that none is lost before it is forwarded.

32 and 33 are glibc's own.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol
else:
    Protocol = object


class Daemon:
    """The serving process: its pid, how to start it again, and how to know that it works."""

    __slots__ = (
        *("answers", "deaths", "give_up", "pid", "respawn", "seen", "sends", "settles"),
        *("since_s", "wanted"),
    )

    def __init__(
        self,
        pid: int,
        respawn: Callable[[], int] | None,
        give_up: Callable[[], None],
        answers: Callable[[], int],
        settles: Callable[[], bool] = lambda: False,
    ) -> None:
        self.pid = pid
        self.respawn = respawn
        """Starts another one and returns its pid; None where a mode cannot."""
        self.give_up = give_up
        """Makes all reads fail from now on, those waiting included."""
        self.answers = answers
        """Number of reads answered so far, by all daemons together."""
        self.settles = settles
        """Whether it has something to do before the container ends, and ends itself on SIGUSR1."""
        self.sends = False
        """It may have a recording to send before the container ends, and ends itself on SIGUSR2."""
        self.deaths = 0
        self.seen = 0
        self.since_s = monotonic()
        self.wanted = False
        """There is none, and `start` is to be called again."""

    def died(self, status: int) -> None:
        """Start it again, or give up when starting again does not help."""
        code = os.waitstatus_to_exitcode(status)
        how = f"with code {code}" if code >= 0 else f"by signal {-code}"
        self.pid = 0
        answers = self.answers()
        settled = answers != self.seen or monotonic() - self.since_s >= SETTLED_S
        self.deaths = 1 if settled else self.deaths + 1
        self.seen = answers
        if self.respawn is None:
            log(f"the daemon ended {how}: what is not in memory fails from now on (ENOTCONN)")
            self.give_up()
        elif self.deaths > IDLE_DEATHS:
            log(
                f"the daemon ended {how}, {IDLE_DEATHS} times without an answer: given up; "
                "what is not in memory fails from now on (EIO for contents, else ENOTCONN)"
            )
            self.give_up()
        elif self.deaths > HASTY_DEATHS:
            self.wanted = True
        else:
            self.start()

    def start(self) -> None:
        """Start it again; when there is no process to be had, leave it `wanted`."""
        if self.respawn is None:
            return
        # The next one does not know what was read.
        self.settles = lambda: False
        self.sends = False
        try:
            self.pid = self.respawn()
        except OSError as error:
            log(f"cannot start the daemon again ({error.strerror}); readers wait until it can be")
        self.since_s = monotonic()
        self.wanted = self.pid == 0

    def settle(self) -> None:
        """Have it fetch what the next start may want, where this one has fetched something.

        And have it send what is recorded.

        Returns `SETTLE_LIMIT_S` later at most, and at once when a signal comes: somebody
        wants the container to end.
        """
        settles = self.settles()
        if not self.pid or not (settles or self.sends):
            return
        os.kill(self.pid, SIGUSR1 if settles else SIGUSR2)
        end_s = monotonic() + SETTLE_LIMIT_S
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            left_s = end_s - monotonic()
            information = sigtimedwait(ALL_SIGNALS, left_s) if left_s > 0 else None
            # By the kernel itself: a child of ours has ended.
            if information is None or information.si_code <= 0:
                return


class Helper(Protocol):
    """A process beside the workload that is started again when it ends: `Daemon`."""

    pid: int
    wanted: bool

    def died(self, status: int) -> None:
        """Deal with its end."""

    def start(self) -> None:
        """Start it again, if one is ``wanted``."""

    def settle(self) -> None:
        """Finish, since the workload has ended."""


def open_processes() -> int:
    """Return an open /proc: by name it would be looked up in another root, later on."""
    return os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def supervise(
    workload: int,
    daemon: Helper,
    told: Callable[[], bool],
    processes: int,
    signals: frozenset[int] = ALL_SIGNALS,
    has_begun: Callable[[], bool] | None = None,
    tell: Callable[[], None] = lambda: None,
) -> int:
    """Serve as PID 1 until the workload ends; return the container's exit code.

    ``told`` is called at each SIGIO until it returns True.  One that somebody sent
    is the workload's all the same, like any of ``signals``.  ``processes`` is an open /proc.
    ``has_begun`` is for a workload that is in this PID namespace: see `forward`.  ``tell`` is
    called when the kernel sends `ASKED`.
    """
    # Not before (boot/start.py); what there is now is never looked at.
    gc.freeze()
    gc.enable()
    joined = False
    asked = False
    while True:
        if daemon.wanted:
            information = sigtimedwait(signals, RETRY_S)
            daemon.start()
            if information is None:
                continue
        else:
            information = sigwaitinfo(signals)
        number = information.si_signo
        if number == ASKED and information.si_code > 0:
            tell()
            continue
        if number == SIGCONT and information.si_pid == daemon.pid:
            continue  # for this process alone, which had been stopped
        if number == SIGIO:
            if not joined:
                # Also at one that somebody sent: the kernel adds none to one that is pending.
                joined = told()
            if information.si_code > 0:
                # One more, or `ASKED`, for which there was no room: not for the workload.
                continue
        # Of the kernel's own kind it tells about our children, else somebody sent it.
        if number != SIGCHLD or information.si_code <= 0:
            asked = asked or information.si_code <= 0
            forward(workload, number, processes, has_begun)
        if number != SIGCHLD:
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if os.WIFSTOPPED(status):
                continue  # it has asked its parent to trace it (PTRACE_TRACEME)
            if pid == workload:
                if not asked:
                    # Whoever has sent a signal may wait for the end: `docker stop`.
                    daemon.settle()
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if pid == daemon.pid:
                daemon.died(status)


def forward(
    workload: int,
    number: int,
    processes: int,
    has_begun: Callable[[], bool] | None = None,
) -> None:
    """Send the workload a signal, as the engine could, whoever the workload now is.

    ``processes`` is an open /proc.  ``has_begun``, whether the workload's program has been
    executed, is for one in this PID namespace: where the kernel would drop a signal to a
    PID 1, which has not begun or has no handler for it, that is done here.
    """
    try:
        if (
            has_begun is None
            or number == SIGCONT
            or (has_begun() and _takes(workload, number, processes))
        ):
            send(workload, number, processes)
    except OSError as error:
        # It has just ended; its SIGCHLD is on the way.
        if error.errno not in (ESRCH, ENOENT):
            log(f"cannot forward signal {number} ({error.strerror}): add --cap-add KILL")


def send(process: int, number: int, processes: int) -> None:
    """Send a process a signal, whoever it is; ``processes`` is an open /proc.

    Raises:
        OSError: it is gone, or may not be sent any.

    """
    try:
        os.kill(process, number)
    except PermissionError:
        # Without CAP_KILL the kernel wants a user id in common (kill(2)).  The real one
        # opens nothing else to us, and is given back at once.
        set_real_uid(_real_uid(process, processes))
        try:
            os.kill(process, number)
        finally:
            set_real_uid(0)


def _real_uid(process: int, processes: int) -> int:
    """Return a process's real user id."""
    return int(_status_field(process, b"Uid", processes))


def _takes(process: int, number: int, processes: int) -> bool:
    """Whether a process handles a signal, or blocks it and may wait for it."""
    return any(
        int(_status_field(process, name, processes), 16) >> number - 1 & 1
        for name in (b"SigCgt", b"SigBlk")
    )


def _status_field(process: int, name: bytes, processes: int) -> bytes:
    """Return the first word of a line of a process's status."""
    fd = os.open(f"{process}/status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=processes)
    try:
        fields = os.read(fd, 4096).partition(b"\n" + name + b":")[2]
    finally:
        os.close(fd)
    return fields.split(None, 1)[0]
