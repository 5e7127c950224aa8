"""The program ``ssh`` as a child process: pipes to it, and its end.

``os.posix_spawn`` and not fork: the daemon has threads, and its child must have none of
its descriptors.  It is known by a descriptor of its own, since in mode ``lease`` PID 1
reaps whatever ends, and a process id may then be another's.
"""

from __future__ import annotations

import os
from _signal import SIGKILL, SIGPIPE, SIGTERM, pidfd_send_signal
from _thread import allocate_lock
from time import monotonic, sleep

from store.errors import Unreachable
from store.read.children import PIDS

SAID_LIMIT = 64 << 10
"""What of its words is kept, in bytes: a pipe's size."""
END_LIMIT_S = 1.0
"""How long it may take to end before it is killed."""
_POLL_S = 0.005

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class SshChild:
    """A running ``ssh``; ``fd_in`` and ``fd_out`` are its standard input and output."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        """Start it, in a session of its own: a terminal's Ctrl-C is not for it.

        Raises:
            Unreachable: there is no process to be had.

        """
        fds: list[int] = []
        try:
            for _ in range(3):
                fds += os.pipe()
        except OSError as error:
            for fd in fds:
                os.close(fd)
            raise Unreachable(f"cannot start {command[0]}: {error.strerror}") from None
        theirs_in, self.fd_in, self.fd_out, theirs_out, self._fd_said, theirs_said = fds
        self._lock = allocate_lock()
        self._ended = False
        pairs = ((theirs_in, 0), (theirs_out, 1), (theirs_said, 2))
        try:
            self._pid = os.posix_spawn(
                command[0],
                command,
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in pairs],
                setsid=True,
                setsigmask=(),
                setsigdef=(SIGPIPE,),
            )
            PIDS.add(self._pid)
            self._process = self._open_process()
        except OSError as error:
            for fd in (self.fd_in, self.fd_out, self._fd_said):
                os.close(fd)
            raise Unreachable(f"cannot start {command[0]}: {error.strerror}") from None
        finally:
            for ours, _ in pairs:
                os.close(ours)
        os.set_blocking(self._fd_said, False)

    def _open_process(self) -> int:
        """Return a descriptor of the process.

        Raises:
            OSError: it is gone already, and reaped by somebody else.

        """
        try:
            return os.pidfd_open(self._pid)
        except OSError:
            PIDS.discard(self._pid)
            raise

    def signal(self, number: int) -> None:
        """Send it a signal, if it still lives."""
        with self._lock:
            if not self._ended:
                try:
                    pidfd_send_signal(self._process, number)
                except ProcessLookupError:
                    return

    def end(self) -> str:
        """End it, if it has not ended, and reap it; return what it wrote to standard error.

        To be called once, by who has read its output; closes all but `fd_in`.
        """
        deadline = monotonic() + END_LIMIT_S
        number = SIGTERM
        while not self._has_ended():
            if monotonic() > deadline:
                self.signal(number)
                number, deadline = SIGKILL, monotonic() + END_LIMIT_S
            sleep(_POLL_S)
        PIDS.discard(self._pid)
        with self._lock:
            self._ended = True
            os.close(self._process)
        said = self._read_said()
        os.close(self._fd_said)
        os.close(self.fd_out)
        return said

    def _has_ended(self) -> bool:
        try:
            return os.waitid(os.P_PIDFD, self._process, os.WEXITED | os.WNOHANG) is not None
        except ChildProcessError:
            return True  # reaped by PID 1

    def _read_said(self) -> str:
        said = b""
        while len(said) < SAID_LIMIT:
            try:
                piece = os.read(self._fd_said, SAID_LIMIT)
            except BlockingIOError:
                break  # whoever it started may live a little longer
            if not piece:
                break
            said += piece
        return said.decode("utf-8", "replace")
