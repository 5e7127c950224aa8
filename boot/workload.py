"""From a child of the init to the workload: what plain Docker would have given it."""

from __future__ import annotations

import fcntl
import os
import stat
from _signal import (
    SIG_DFL,
    SIG_SETMASK,
    SIGINT,
    SIGPIPE,
    SIGXFSZ,
    default_int_handler,
    getsignal,
    pthread_sigmask,
    signal,
)
from errno import EIO, ENOENT, ENOEXEC, ENOTDIR, ETXTBSY
from termios import TIOCSCTTY
from time import sleep

from boot.mounts import Mount, are_podmans, remake_proc
from boot.seccomp import plain_docker_filter, plain_podman_filter
from boot.syscalls import (
    CLONE_NEWNS,
    MNT_DETACH,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RELATIME,
    drop_capability,
    install_seccomp,
    mount,
    unmount,
    unshare,
)
from store.errors import BootError, WorkloadNotExecutable, WorkloadNotFound

CAP_SYS_ADMIN = 21
BUSY_TRIES = 20
BUSY_S = 0.005
"""A tenth of a second in all, for what may last some microseconds."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Identity:
    """Who the workload is to be, as the engine set up this process."""

    __slots__ = ("filtered", "gid", "keeps_admin", "uid")

    def __init__(self, uid: int, gid: int, keeps_admin: bool, filtered: bool) -> None:
        self.uid = uid
        self.gid = gid
        """Group id; the supplementary ones are already right."""
        self.keeps_admin = keeps_admin
        """SYS_ADMIN was the user's wish and not only ours."""
        self.filtered = filtered
        """The engine runs the container under a seccomp filter."""


def become_workload(
    arguments: list[bytes],
    environment: dict[bytes, bytes],
    directory: bytes,
    identity: Identity,
    mounts: list[Mount],
) -> NoReturn:
    """Turn this process, PID 1 of a new PID namespace, into the workload.

    Raises:
        BootError: it cannot be; with Docker's exit codes 126 and 127 where they fit.

    """
    os.setsid()
    if os.isatty(0):
        fcntl.ioctl(0, TIOCSCTTY, 1)
    unshare(CLONE_NEWNS)
    proc = [m for m in mounts if m.target == b"/proc"]
    if proc:
        _renew_proc()
        remake_proc(mounts)
    os.chdir(directory)
    if not identity.keeps_admin:
        # In this order: a filter needs SYS_ADMIN, or else no_new_privs.
        if identity.filtered:
            is_podman = are_podmans(mounts)
            install_seccomp(plain_podman_filter() if is_podman else plain_docker_filter())
        drop_capability(CAP_SYS_ADMIN)
    take_identity(arguments, environment, identity)


def _renew_proc() -> None:
    """Replace the engine's /proc by one of this PID namespace."""
    # The old one is moved aside, and goes last: in a user namespace, that of a rootless
    # container, the kernel makes a /proc only beside another one (mount_namespaces(7)).
    mount(b"/proc", b"/dev", None, MS_MOVE)
    mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME)
    unmount(b"/dev", MNT_DETACH)


def take_identity(
    arguments: list[bytes], environment: dict[bytes, bytes], identity: Identity
) -> NoReturn:
    """Become the user and execute the workload, the last steps in every mode.

    Raises:
        BootError: it cannot be executed.

    """
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    # Ignored by the interpreter, and what is ignored stays so in the program executed.
    signal(SIGPIPE, SIG_DFL)
    signal(SIGXFSZ, SIG_DFL)
    # The interpreter's way to end; by default, the kernel drops what was sent to a PID 1.
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, SIG_DFL)
    pthread_sigmask(SIG_SETMASK, ())
    execute(arguments, environment)


def execute(arguments: list[bytes], environment: dict[bytes, bytes]) -> NoReturn:
    """Execute a program as the engine would: by PATH where its name has no slash.

    By PATH only what is a program counts, and nothing that is found relative to the
    working directory is executed, as Docker has it.

    Raises:
        WorkloadNotFound, WorkloadNotExecutable, BootError: why not.

    """
    name = arguments[0]
    shown = os.fsdecode(name)
    by_path = b"/" not in name
    candidates = [name]
    if by_path:
        path = environment.get(b"PATH", b"") if name else b""
        candidates = [(place or b".") + b"/" + name for place in path.split(b":") if path]
    for candidate in candidates:
        if by_path and not candidate.startswith(b"/") and _is_program(candidate):
            raise BootError(
                f"cannot execute {shown}: by $PATH nothing is executed that is relative "
                "to the working directory"
            )
        try:
            _execute(candidate, arguments, environment)
        except OSError as error:
            if error.errno == EIO:
                raise  # content that cannot be had: the daemon has said which, and why
            if by_path and not _is_program(candidate):
                continue
            if error.errno == ENOEXEC:
                raise WorkloadNotExecutable(f"cannot execute {shown}: exec format error") from None
            kind = WorkloadNotFound if error.errno in (ENOENT, ENOTDIR) else WorkloadNotExecutable
            raise kind(f"cannot execute {shown}: {error.strerror}") from None
    raise WorkloadNotFound(f"cannot execute {shown or repr(shown)}: not found in $PATH")


def _execute(path: bytes, arguments: list[bytes], environment: dict[bytes, bytes]) -> NoReturn:
    for _ in range(BUSY_TRIES):
        try:
            os.execve(path, arguments, environment)
        except OSError as error:
            # Mode ``lease`` has filled it, and the kernel wakes who waits a moment too early.
            if error.errno != ETXTBSY:
                raise
        sleep(BUSY_S)
    os.execve(path, arguments, environment)


def _is_program(path: bytes) -> bool:
    """Whether a path leads to a file that somebody may execute."""
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno == EIO:
            raise
        return False
    return not stat.S_ISDIR(status.st_mode) and bool(status.st_mode & 0o111)
