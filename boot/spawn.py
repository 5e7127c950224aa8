"""Fork the daemon so that it outlives the init's move to another root."""

from __future__ import annotations

import os
from _signal import SIGKILL
from errno import EACCES, ENOENT, EPERM

from boot.log import log
from boot.syscalls import CLONE_NEWNS, PR_SET_DUMPABLE, PR_SET_NAME, prctl, setns
from store.errors import BootError, MountFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_READY, _REFUSED, _FAILED = b"r", b"m", b"f"
"""First byte of what a daemon tells its parent: serving; `MountFailed`; any other failure."""


NEEDS = "--cap-add SYS_ADMIN --device /dev/fuse --security-opt apparmor=unconfined"
"""What to give to ``docker run``, for messages."""


def open_fuse() -> int:
    """Return a descriptor of the FUSE device; the caller closes it.

    Raises:
        BootError: the container has none.

    """
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        why = "is not in the container" if error.errno == ENOENT else error.strerror
        if error.errno in (EPERM, EACCES):
            why = "may not be opened"
        raise BootError(f"/dev/fuse {why}: start the container with {NEEDS}") from None


def detach_stdio() -> None:
    """Let go of stdin and stdout, which are the workload's; stderr stays for the log."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


class Spawned:
    """A daemon that has been forked and has not yet said how its mount went."""

    __slots__ = ("_hear", "pid")

    def __init__(self, pid: int, hear: int) -> None:
        self.pid = pid
        self._hear = hear

    def abandon(self) -> None:
        """Kill it, whatever it has to say."""
        os.kill(self.pid, SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._hear)

    def wait_until_mounted(self, failed: Callable[[], None]) -> None:
        """Return when the image is mounted; otherwise call ``failed`` before anything else.

        Raises:
            MountFailed: the kernel refused the mount; the daemon has ended.
            BootError: it ended for another reason, which is the message.

        """
        said = b""
        while piece := os.read(self._hear, 4096):
            said += piece
        os.close(self._hear)
        if said[:1] == _READY:
            return
        failed()
        _, status = os.waitpid(self.pid, 0)
        line = said[1:].decode("utf-8", "surrogateescape")
        if said[:1] == _REFUSED:
            raise MountFailed(line)
        code = os.waitstatus_to_exitcode(status)
        raise BootError(
            line or f"the daemon ended with {code} before it served anything; start again"
        )


def spawn_daemon(action: Callable[[Callable[[BaseException | None], None]], None]) -> Spawned:
    """Run ``action`` in a new process, the daemon.

    ``action`` gets a function to call when it has mounted the image, or with why it
    could not, from which it does not return.  The daemon
    stays in the mount namespace that the caller is in now, where boot image, cache
    and runtime are.
    """
    hear, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hear)

        parent_waits = True

        def say(what: bytes) -> None:
            try:
                os.write(tell, what)
            except BrokenPipeError:
                # The parent is ending, for a reason of its own, which it has told.
                os._exit(BootError.exit_code)

        def told(problem: BaseException | None) -> None:
            nonlocal parent_waits
            if problem is not None:
                failed(problem, str(problem))
                os._exit(BootError.exit_code)
            say(_READY)
            os.close(tell)
            parent_waits = False

        def failed(error: BaseException, line: str) -> None:
            if parent_waits:
                kind = _REFUSED if isinstance(error, MountFailed) else _FAILED
                say(kind + line.encode("utf-8", "surrogateescape"))
            else:
                log(line)

        _become_daemon(lambda: action(told), failed)
    os.close(tell)
    return Spawned(pid, hear)


def respawn_daemon(namespace: int, action: Callable[[], None]) -> int:
    """Run ``action`` in a new process in the mount namespace of the first; return its pid."""
    pid = os.fork()
    if pid == 0:
        # The runtime's files are in that namespace alone: first go there, then import.
        setns(namespace, CLONE_NEWNS)
        _become_daemon(action, lambda _, line: log(line))
    return pid


def _become_daemon(
    action: Callable[[], None], failed: Callable[[BaseException, str], None]
) -> NoReturn:
    from boot.daemon import run

    def act() -> None:
        os.setsid()
        detach_stdio()
        # The launcher made the user root by the effective id alone, and FUSE lets in only
        # processes whose every id is the owner's.
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        prctl(PR_SET_NAME, b"bootfs-daemon\0")
        # Neither core dumps nor /proc/PID/mem may show a store's bytes to the workload.
        prctl(PR_SET_DUMPABLE, 0)
        action()

    run(act, failed)
