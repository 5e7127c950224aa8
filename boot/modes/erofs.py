"""Mode ``erofs``: the kernel's EROFS over one virtual file, which the daemon serves.

Needs SYS_ADMIN, /dev/fuse and a kernel that mounts EROFS from a file (6.12, with
CONFIG_EROFS_FS_BACKED_BY_FILE).  Python runs only when the kernel misses its
page cache.  Imported before the daemon is forked: nothing that can wait.
"""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread
from time import monotonic, sleep

from boot.log import NO_PROCESS
from boot.spawn import NEEDS, open_fuse, respawn_daemon, spawn_daemon
from boot.status import Status
from boot.syscalls import (
    CLONE_FILES,
    MNT_DETACH,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    mount,
    unmount,
    unshare,
)
from store.errors import BootError, MountFailed
from store.format.status import SERVED

FUSE = b"/.bootfs/mnt/fuse"
LOWER = b"/.bootfs/mnt/image"
FILES = 1024
"""More than a daemon that begins has open."""
THREAD_LIMIT_S = 2.0
"""So long does the boot wait for a thread where the container may have no more of them."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from boot.daemon import Service
    from boot.supervise import Daemon


class Attempt:
    """A daemon on its way to serve the image and mount it at `LOWER`."""

    __slots__ = ("_environment", "_fuse", "_namespace", "_spawned", "_status")

    def __init__(self, environment: dict[bytes, bytes], status: Status) -> None:
        """Start the daemon; it imports, parses and mounts while the caller goes on.

        It counts in ``status``.

        Raises:
            BootError: the container has no /dev/fuse.

        """
        self._environment = environment
        self._fuse = open_fuse()
        self._status = status
        self._namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._spawned = spawn_daemon(self._serve_first)

    def close_device(self) -> None:
        """Close the FUSE device in this process, which neither serves it nor gives it on."""
        os.close(self._fuse)

    def abandon(self) -> None:
        """End the daemon, which mounts nothing that is of use."""
        self._spawned.abandon()
        os.close(self._fuse)
        os.close(self._namespace)

    def finish(self) -> Daemon:
        """Return the daemon once the image is mounted.

        Raises:
            MountFailed: the kernel refuses EROFS; nothing is left mounted and no process runs.
            BootError: the daemon cannot serve the image.

        """
        # Here, since the daemon is to be forked before anything else is imported.
        from boot.supervise import Daemon

        try:
            # Without the device, a mount that waits for a daemon that is gone ends.
            self._spawned.wait_until_mounted(failed=lambda: os.close(self._fuse))
        except BaseException as error:
            os.close(self._namespace)
            if isinstance(error, MountFailed):
                # Not the daemon: without the mount it ends, before it can say why.
                unmount(FUSE, MNT_DETACH)
            raise
        return Daemon(
            self._spawned.pid,
            respawn=self._respawn,
            give_up=lambda: os.close(self._fuse),
            answers=lambda: self._status.number("answered"),
            settles=lambda: self._status.number("fetched_chunks") != 0,
        )

    def _respawn(self) -> int:
        self._status.count_daemon()
        return respawn_daemon(self._namespace, self._serve_again)

    def _open_service(self, *, is_first: bool) -> Service:
        from boot.daemon import Service

        return Service(self._environment, self._fuse, self._status.memory, is_first=is_first)

    def _serve_first(self, told: Callable[[BaseException | None], None]) -> None:
        from boot.kernelreads import KernelReads

        service = self._open_service(is_first=True)
        kernel = KernelReads()
        is_exact = service.reads_exactly()
        if is_exact:
            kernel.begin()
        service.watch_reads(kernel.restore)
        self._status.step(SERVED)
        _mount_file(self._fuse)
        if is_exact:
            # For what there is before the mount.
            kernel.wait_until_open()
        gate = allocate_lock()
        gate.acquire()
        problems: list[BaseException] = []

        def mount_image() -> None:
            # Waits for this very daemon, so it keeps nothing open: when the daemon dies,
            # the init hears of it by the pipe's end, and by closing the device, the last
            # one then, ends the wait.
            try:
                unshare(CLONE_FILES)
                os.closerange(3, FILES)
                _mount_image()
            except BaseException as error:
                problems.append(error)
            gate.release()

        def go_on() -> None:
            with gate:
                if problems:
                    told(problems[0])
            if is_exact and service.reads_exactly():
                kernel.shorten()
                if not service.reads_exactly():
                    # One has heard meanwhile that there is no profile.
                    kernel.restore()
            # Asks nothing of this daemon: the kernel knows the name, and that it need not ask.
            own = os.open(FUSE + b"/image.erofs", os.O_RDONLY | os.O_CLOEXEC)
            # The mount of the image holds the file; by path nobody needs it any more.
            unmount(FUSE, MNT_DETACH)
            told(None)
            if not is_exact:
                kernel.begin()
            step = kernel.allow_long_advice(os.fstat(own).st_dev)
            os.posix_fadvise(own, 0, 0, os.POSIX_FADV_NORMAL)
            kernel.close()
            service.read_ahead(own, step)

        _start_thread(mount_image)
        _start_thread(go_on)
        service.file.serve()

    def _serve_again(self) -> None:
        from boot.kernelreads import KernelReads

        kernel = KernelReads()
        kernel.begin()
        service = self._open_service(is_first=False)
        service.file.resend()
        try:
            start_new_thread(kernel.give_back, ())
        except RuntimeError:
            # The container may have no more threads (--pids-limit).
            kernel.close()
        service.file.serve()


def _start_thread(action: Callable[[], None]) -> None:
    """Run ``action``, which the boot needs, in a thread of its own.

    Where there is none to be had it waits for others, which end soon: those that dial and
    that open sysfs are but for speed.

    Raises:
        BootError: none becomes free.

    """
    until_s = monotonic() + THREAD_LIMIT_S
    while True:
        try:
            start_new_thread(action, ())
        except RuntimeError:
            if monotonic() > until_s:
                raise BootError(NO_PROCESS) from None
            sleep(0.01)
        else:
            return


def _mount_file(fuse: int) -> None:
    """Mount ``image.erofs``, to be served on the device ``fuse``; it can be read from then on.

    Raises:
        MountFailed: the kernel refuses, as it would in mode ``fuse``.

    """
    # FUSE lets in only processes with exactly these ids.
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        # Our mounts stay ours.  Not those of the user, which may be shared on purpose.
        mount(None, b"/", None, MS_PRIVATE)
        mount(b"bootfs", FUSE, b"fuse", MS_NOSUID | MS_NODEV | MS_RDONLY, options)
    except OSError as error:
        raise MountFailed(
            f"the kernel refuses to mount FUSE ({error.strerror}): start the container with {NEEDS}"
        ) from None


def _mount_image() -> None:
    """Mount the image in ``image.erofs``, which another thread serves.

    Raises:
        MountFailed: the kernel refuses.

    """
    file = FUSE + b"/image.erofs"
    try:
        mount(file, LOWER, b"erofs", MS_RDONLY)
    except OSError as error:
        raise MountFailed(
            f"the kernel refuses to mount EROFS from a file: {error.strerror}"
        ) from None
    # Here, where it may wait, the kernel learns that closing it needs no request either.
    os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
