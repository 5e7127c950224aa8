"""The workload's root: a writable overlay over the lazy image, the engine's mounts moved in."""

from __future__ import annotations

import fcntl
import os
from errno import EEXIST, ELOOP

from boot.config import HOME, MOUNTS, WRITABLE
from boot.mounts import Mount, top_level
from boot.syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_MOVE,
    MS_RDONLY,
    MS_RELATIME,
    MS_REMOUNT,
    mount,
    unmount,
)
from store.errors import BootError, MountFailed
from store.format.names import CACHE_LAYOUT as LAYOUT

ROOT = f"{MOUNTS}/root".encode()
LINK_LIMIT = 40
"""Symbolic links followed in one path before it is a loop, as the kernel has it."""


class Writable:
    """The container's own directory on the rw volume, locked while the container lives."""

    __slots__ = ("filled", "fresh", "lock", "path")

    def __init__(self, mounts: list[Mount], image: str) -> None:
        """Make or find the directory for the container that ``mounts`` show.

        Raises:
            BootError: the volume cannot be written, or another container has it.

        """
        self.path = f"{WRITABLE}/{container_name(mounts)}/{image}"
        try:
            for entry in mounts:
                # ``--volumes-from OTHER:ro`` is about the volumes that the user knows of.
                if entry.target == WRITABLE.encode() and b"ro" in entry.options:
                    flags = entry.flags & ~MS_RDONLY | MS_REMOUNT | MS_BIND
                    mount(None, entry.target, None, flags)
            os.makedirs(self.path, 0o700, exist_ok=True)
            self.lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BootError(
                f"{self.path}: another container writes there; remove it first"
            ) from None
        except OSError as error:
            raise BootError(
                f"{self.path}: {error.strerror}; the volume {WRITABLE} must be writable"
            ) from None
        self.fresh = not os.path.exists(f"{self.path}/work")
        """There is no upper directory yet."""
        self.filled = os.path.exists(f"{self.path}/filled")
        """New volumes have got their content, all of it."""

    def mark_filled(self) -> None:
        """Remember that new volumes have got their content."""
        os.close(os.open(f"{self.path}/filled", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self.filled = True


def container_name(mounts: list[Mount]) -> str:
    """Return the container's id as the engine's own mounts show it, else its host name.

    Docker and Podman keep /etc/hostname in a directory that is named by the id.
    """
    for entry in mounts:
        if entry.target in (b"/etc/hostname", b"/etc/hosts", b"/etc/resolv.conf"):
            for part in entry.root.split(b"/"):
                if len(part) == 64 and not part.strip(b"0123456789abcdef"):
                    return part.decode()
    return os.uname().nodename


def mount_overlay(lower: bytes, writable: Writable) -> None:
    """Mount the workload's root at `ROOT`.

    Raises:
        MountFailed: the kernel refuses.

    """
    upper = f"{writable.path}/upper"
    work = f"{writable.path}/work"
    if writable.fresh:
        os.makedirs(upper, exist_ok=True)
        _copy_attributes(os.fsdecode(lower), upper)
        # Last, since its presence says that the upper directory is as it should be.
        os.mkdir(work, 0o700)
    options = f"lowerdir={os.fsdecode(lower)},upperdir={upper},workdir={work},index=off,xino=on"
    try:
        mount(b"overlay", ROOT, b"overlay", 0, options.encode())
    except OSError as error:
        raise MountFailed(
            f"the kernel refuses an overlay on the volume {WRITABLE}: {error.strerror}; "
            "it must lie on a file system like ext4 or xfs"
        ) from None
    unmount(lower, MNT_DETACH)


def _copy_attributes(source: str, target: str) -> None:
    """Give ``target`` owner, mode, extended attributes and times of ``source``."""
    status = os.stat(source)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, status.st_mode & 0o7777)
    for name in os.listxattr(source):
        os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))


def resolve(path: bytes) -> bytes:
    """Return where ``path`` of the workload's root lies below `ROOT`, links followed inside it.

    The last component and those before it need not exist.

    Raises:
        BootError: the links make a loop.

    """
    done: list[bytes] = []
    todo = [part for part in reversed(path.split(b"/")) if part]
    links = 0
    while todo:
        part = todo.pop()
        if part == b".":
            continue
        if part == b"..":
            del done[-1:]
            continue
        try:
            target = os.readlink(b"/".join((ROOT, *done, part)))
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > LINK_LIMIT:
            raise BootError(f"mount point {os.fsdecode(path)}: {os.strerror(ELOOP)}")
        if target.startswith(b"/"):
            done.clear()
        todo.extend(p for p in reversed(target.split(b"/")) if p)
    return b"/".join((ROOT, *done))


def is_volume(entry: Mount) -> bool:
    """Whether this is a volume of the engine's, and not one of ours."""
    is_named_so = entry.root.endswith(b"/_data") and b"/volumes/" in entry.root
    return is_named_so and not entry.target.startswith(HOME.encode() + b"/")


def is_kept(place: str, mounts: list[Mount], own: str = "") -> bool:
    """Whether other containers will find what this one writes to the cache at ``place``.

    An anonymous volume goes with its container, unless it is that of a cache container:
    then there is something in it, a mark or other images' directories.  That named
    ``own`` does not count.
    """
    entry = next((m for m in mounts if m.target == place.encode()), None)
    if entry is None:
        return False
    name = entry.root.removesuffix(b"/_data").rpartition(b"/")[2]
    if len(name) != 64 or name.strip(b"0123456789abcdef"):
        return True
    images = f"{place}/{LAYOUT}"
    return any(found != LAYOUT for found in os.listdir(place)) or (
        os.path.isdir(images) and any(found != own for found in os.listdir(images))
    )


def move_mounts(mounts: list[Mount]) -> None:
    """Move what the engine mounted in the container to the same paths below `ROOT`."""
    for entry in top_level(mounts):
        if entry.target == HOME.encode() or entry.target.startswith(HOME.encode() + b"/"):
            continue
        place = resolve(entry.target)
        _make_mount_point(place, os.path.isdir(entry.target))
        mount(entry.target, place, None, MS_MOVE)
    for name in ("/.dockerenv", "/etc/mtab"):
        _copy_from_engine(name)


def _copy_from_engine(path: str) -> None:
    """Make a file or link that the engine put beside the image's files, unless it is there."""
    place = ROOT + path.encode()
    if os.path.lexists(place) or not os.path.lexists(path):
        return
    if os.path.islink(path):
        os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
        os.symlink(os.readlink(path), place)
    else:
        _make_mount_point(place, False)


def _make_mount_point(place: bytes, directory: bool) -> None:
    if os.path.lexists(place):
        return
    try:
        os.makedirs(place if directory else os.path.dirname(place), 0o755, exist_ok=True)
        if not directory:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o755))
    except OSError as error:
        if error.errno != EEXIST:
            shown = os.fsdecode(place[len(ROOT) :])
            raise MountFailed(f"cannot make {shown} in the root: {error.strerror}") from None


def make_directory(path: bytes) -> None:
    """Make the working directory where the root lacks it, as Docker makes it.

    Raises:
        MountFailed: it cannot be made.

    """
    place = resolve(path)
    if not os.path.isdir(place):
        _make_mount_point(place, True)


def make_read_only() -> None:
    """Let nothing be written to the root from now on, as under ``--read-only``.

    Only this mount, not the file system, as the engine does it; after the mount
    points are made and volumes filled, which write.
    """
    mount(None, ROOT, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_RELATIME)


def enter() -> None:
    """Make `ROOT` the root of this process and of whoever enters its mount namespace later.

    pivot_root(2) is not in Docker's default seccomp profile; moving the mount over
    the old root does the same for all who look at it from now on.
    """
    os.chdir(ROOT)
    mount(b".", b"/", None, MS_MOVE)
    os.chroot(".")
    os.chdir("/")
