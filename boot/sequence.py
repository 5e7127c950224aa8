"""From a bare engine to the workload, in the numbered steps of `boot`.

What is imported here is paid at each container start, and all that PID 1 will
ever need must be imported before its root is moved away from the runtime's files.
"""

from __future__ import annotations

import os

from boot import root
from boot.config import Settings, read_boot_config, workload_environment
from boot.failure import report
from boot.joining import Joining
from boot.log import log
from boot.modes import erofs
from boot.mounts import Mount, read_mounts
from boot.rights import (
    CAP_DAC_OVERRIDE,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETUID,
    CAP_SYS_ADMIN,
    CAP_SYS_CHROOT,
    missing,
    options,
)
from boot.spawn import NEEDS, detach_stdio
from boot.status import Status
from boot.supervise import Daemon, open_processes, supervise
from boot.syscalls import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    MS_PRIVATE,
    PR_CAPBSET_READ,
    PR_SET_DUMPABLE,
    mount,
    prctl,
    setns,
    unshare,
)
from boot.workload import Identity, become_workload
from store.errors import BootError, MountFailed
from store.format.status import ENDED, HANDED, MOUNTED, ROOTED

PR_GET_SECCOMP = 21
CAP_SYS_MODULE, CAP_SYS_BOOT = 16, 22


def boot(
    arguments: list[bytes],
    given: dict[bytes, bytes],
    status: Status,
    attempt: erofs.Attempt | None,
    problem: BootError | None = None,
) -> int:
    """Boot the workload with ``arguments`` after its entrypoint; return the exit code.

    ``given`` is the environment from the engine, ``status`` what is counted, ``attempt`` the
    daemon of mode ``erofs`` where that mode is wanted; in mode ``auto``, ``problem`` may say
    why there is none.

    Raises:
        BootfsError: there is no workload; the message says why.

    """
    # 1. What the image, the user and the engine want.
    mounts = read_mounts()
    root.check_own_files(mounts)
    config = read_boot_config()
    settings = Settings(config, given)
    environment = workload_environment(given)
    directory = os.getcwdb()
    command = [*settings.entrypoint, *arguments]
    if not command:
        raise BootError(
            "no command: the image has neither ENTRYPOINT nor CMD; give one to docker run"
        )
    identity = _identity(settings)

    # 2. Who may do that, and where the workload's changes go.
    is_auto = settings.mode == "auto"
    if attempt is not None or settings.mode == "fuse":
        try:
            _check_rights(identity)
        except BootError as error:
            if not is_auto:
                raise
            problem = error
    _check_capabilities(_needed(identity))
    # FUSE lets in only processes whose every id is the owner's, and what is made in the
    # root belongs to root.
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)

    def boot_without_mounts() -> int:
        from boot.modes import lease

        if problem is not None:
            log(f"mode lease: {problem}")
        return lease.boot(settings, command, environment, directory, identity, mounts, status)

    if problem is not None or settings.mode in ("lease", "eager"):
        if attempt is not None:
            attempt.abandon()
        return boot_without_mounts()
    root.provide_writable(mounts)
    writable = root.Writable(mounts, settings.chunk_index.hex()[:32])

    # 3. The workload is PID 1 of its own PID namespace; later children are not in it.  It is
    # forked while the daemon, which has more to import, is on its way.
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    joining = Joining()
    unshare(CLONE_NEWPID)
    workload = os.fork()
    if workload == 0:
        try:
            # A process that may wait for the daemon must not keep its device open, or
            # it waits for ever when daemon and init are gone.
            if attempt is not None:
                attempt.close_device()
            joining.begin_child()
            if not joining.wait_for_image():
                os._exit(BootError.exit_code)  # PID 1 says why
            _make_root(erofs.LOWER, writable, mounts, directory)
            status.step(ROOTED)
            joining.wait_for_parent()
            status.step(HANDED)
            become_workload(command, environment, directory, identity, mounts)
        except Exception as error:
            os._exit(report(error))
    setns(own, CLONE_NEWPID)
    os.close(own)
    joining.begin_parent()

    # The image, lazily.  The daemon mounts it, in this first mount namespace, where it stays.
    try:
        mode, daemon = _mount_image(settings, attempt, status)
    except MountFailed as error:
        if not is_auto:
            raise
        problem = error
        joining.abandon(workload)
        return boot_without_mounts()
    joining.tell_of_image()
    status.step(MOUNTED)
    # While the child makes the root.
    status.watch(mode, settings.chunk_index, root.container_name(mounts))
    if not root.is_kept(settings.cache, mounts, settings.chunk_index.hex()):
        # No start to come would find what it fetches in the end.
        daemon.settles = lambda: False
    daemon.sends = settings.sends_recording and mode == "erofs"
    # What is in this process's memory is not for the workload.
    prctl(PR_SET_DUMPABLE, 0)
    detach_stdio()

    # 7. Until it ends.
    code = supervise(
        workload,
        daemon,
        lambda: joining.follow(workload),
        open_processes(),
        tell=status.answer,
    )
    status.step(ENDED)
    status.write(has_ended=True)
    return code


def _make_root(
    lower: bytes, writable: root.Writable, mounts: list[Mount], directory: bytes
) -> None:
    """Make the workload's root, in a mount namespace of its own.

    Raises:
        BootError: it cannot be made.

    """
    # 4. A writable layer over the image.
    unshare(CLONE_NEWNS)
    root.mount_overlay(lower, writable)

    # 5. The engine's mounts go where the workload looks for them.
    root.move_mounts(mounts)
    if not writable.filled and any(root.is_volume(m) for m in mounts):
        from boot.volumes import fill_new_volumes

        fill_new_volumes(mounts, directory)
        # Last, since what a start did not finish, the next one does.
        writable.mark_filled()
    root.make_directory(directory)
    if any(m.target == b"/" and b"ro" in m.options for m in mounts):
        root.make_read_only()

    # 6. The root itself: when the init has followed, `docker exec` lands in it.
    root.enter()


def _identity(settings: Settings) -> Identity:
    """Return who the workload is to be.

    The launcher made this process root by its effective id; the real one is still
    the user's.  SYS_ADMIN beside capabilities that bootfs never asks for was given
    by ``--privileged`` or ``--cap-add ALL``, so the workload keeps it.
    """
    privileged = bool(
        prctl(PR_CAPBSET_READ, CAP_SYS_MODULE) and prctl(PR_CAPBSET_READ, CAP_SYS_BOOT)
    )
    keeps_admin = privileged or settings.keeps_admin
    return Identity(os.getuid(), os.getgid(), keeps_admin, prctl(PR_GET_SECCOMP) == 2)


def _needed(identity: Identity) -> set[int]:
    """Return the capabilities without which no mode boots a workload of this ``identity``."""
    needed = {CAP_SYS_CHROOT}
    if identity.uid:
        needed.add(CAP_SETUID)
    if identity.gid:
        needed.add(CAP_SETGID)
    return needed


def _check_capabilities(needed: set[int]) -> None:
    """Return when this process has the capabilities ``needed``.

    Raises:
        BootError: it lacks some; the message names them all.

    """
    lacking = missing(needed)
    if lacking:
        raise BootError(f"cannot boot with so few capabilities: add {options(lacking)}")


def _check_rights(identity: Identity) -> None:
    """Return when this process may do what a boot needs that mounts.

    Raises:
        BootError: it may not; the message names all that is to be given to docker run.

    """
    # An overlay makes itself a directory of mode 0, and works in it.
    needed = _needed(identity) | {CAP_DAC_OVERRIDE, CAP_SETPCAP}
    if missing({CAP_SYS_ADMIN}):
        others = options(missing(needed))
        raise BootError(f"may not mount: start the container with {NEEDS} {others}".rstrip())
    _check_capabilities(needed)
    try:
        # Our mounts stay ours.  Not those of the user, which may be shared on purpose.
        mount(None, b"/", None, MS_PRIVATE)
    except OSError as error:
        raise BootError(
            f"may not mount ({error.strerror}): start the container with {NEEDS}"
        ) from None


def _mount_image(
    settings: Settings, attempt: erofs.Attempt | None, status: Status
) -> tuple[str, Daemon]:
    """Mount the image at `erofs.LOWER` in the first mode that works; return it and its daemon."""
    if attempt is not None:
        try:
            return "erofs", attempt.finish()
        except MountFailed as error:
            if settings.mode == "erofs":
                raise MountFailed(
                    f"{error}; give BOOTFS_MODE=auto or BOOTFS_MODE=fuse, which do without"
                ) from None
            log(f"mode fuse: {error}")
    from boot.modes import fusetree

    return "fuse", fusetree.start(settings, status)
