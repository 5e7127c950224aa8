"""The workload's root: a writable overlay over the lazy image, the engine's mounts moved in."""

from __future__ import annotations

import fcntl
import os
from errno import EEXIST, ELOOP

from boot.apart import make_apart
from boot.config import HOME, IMAGE, MOUNTS, RUNTIME, WRITABLE
from boot.log import log
from boot.mounts import Mount, are_podmans, top_level
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


_CARRY_NO_OVERLAY = (b"overlay", b"fuse.fuse-overlayfs")
"""File systems of a container's own root that take no upper directory."""

_FIRST_USER_NAMESPACE = "user:[4026531837]"
"""PROC_USER_INIT_INO of linux/proc_ns.h: the machine's own, and not a rootless container's."""


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
    """Return what tells this container from all others of its engine, in each of its starts.

    That is the name of its own layer: of the directory around the upper directory of the
    engine's overlay, or of its root where that is no overlay.  Docker and Podman draw one,
    of the form of an id.  Those of containerd are numbers: they go behind an id from
    /etc/hostname and its like, or the host name.  Those alone do not do: containers that
    share a network, or a pod, share them as well.
    """
    own = _engine_root(mounts)
    upper = own.super_options.partition(b",upperdir=")[2].partition(b",")[0]
    name = os.path.basename(os.path.dirname(upper) or own.root)
    if _is_id(name):
        return name.decode()
    behind = f".{os.fsdecode(name)}" if name else ""
    for entry in mounts:
        if entry.target in (b"/etc/hostname", b"/etc/hosts", b"/etc/resolv.conf"):
            for part in entry.root.split(b"/"):
                if _is_id(part):
                    return part.decode() + behind
    return os.uname().nodename + behind


def _is_id(name: bytes) -> bool:
    return len(name) == 64 and not name.strip(b"0123456789abcdef")


def _engine_root(mounts: list[Mount]) -> Mount:
    """Return the root that the engine made of the boot image."""
    return next(entry for entry in reversed(mounts) if entry.target == b"/")


def check_own_files(mounts: list[Mount]) -> None:
    """Return when nothing of the user's lies over what the boot image itself holds.

    Docker copies that into a new volume, and there it stays: the volume would have other
    images boot as this one.

    Raises:
        BootError: something does.

    """
    for entry in mounts:
        place = os.fsdecode(entry.target)
        # What is below the mount points may be a mount of our daemon's already.
        if place in (HOME, MOUNTS) or f"{place}/".startswith((f"{IMAGE}/", f"{RUNTIME}/")):
            raise BootError(
                f"something is mounted over {place}, where bootfs has its own files: "
                "mount it elsewhere"
            )


def provide_writable(mounts: list[Mount]) -> None:
    """Have a container without a volume at `WRITABLE` keep its changes in memory.

    Not every engine makes the image's volumes (``ctr run`` does not), and the kernel takes
    no upper directory on an overlay, which the container's own root is.
    """
    own = _engine_root(mounts).kind
    if own in _CARRY_NO_OVERLAY and not any(m.target == WRITABLE.encode() for m in mounts):
        mount(b"tmpfs", WRITABLE.encode(), b"tmpfs", 0, b"mode=700")
        log(
            f"no volume at {WRITABLE}: what the container writes is kept in memory and goes with "
            f"it; for ctr run give --mount type=bind,src=DIRECTORY,dst={WRITABLE},options=rbind:rw"
        )


def mount_overlay(lower: bytes, writable: Writable) -> None:
    """Mount the workload's root at `ROOT`.

    Raises:
        MountFailed: the kernel refuses.

    """
    upper = f"{writable.path}/upper"
    work = f"{writable.path}/work"
    if writable.fresh:
        # Of a start that was cut off there may be one.
        if not os.path.isdir(upper):
            _make_apart(writable.path, upper)
        _copy_attributes(os.fsdecode(lower), upper)
        # Last, since its presence says that the upper directory is as it should be.  The kernel
        # makes copies of the image's directories in it, and moves them to the other.
        _make_apart(writable.path, work)
    options = f"lowerdir={os.fsdecode(lower)},upperdir={upper},workdir={work},index=off,xino=on"
    if os.readlink("/proc/self/ns/user") != _FIRST_USER_NAMESPACE:
        # Its marks on directories are trusted.* by default, which need rights over the
        # machine: without any, a directory that has content cannot be removed (EIO).
        options += ",userxattr"
    try:
        mount(b"overlay", ROOT, b"overlay", 0, options.encode())
    except OSError as error:
        raise MountFailed(
            f"the kernel refuses an overlay on the volume {WRITABLE}: {error.strerror}; "
            "it must lie on a file system like ext4 or xfs"
        ) from None
    unmount(lower, MNT_DETACH)


def _make_apart(parent: str, path: str) -> None:
    """Make the directory ``path`` in ``parent``, apart from those of other containers."""
    apart = make_apart(os.fsencode(parent))
    if apart is None:
        os.mkdir(path, 0o700)
    else:
        os.rename(apart, path)


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
    """Whether this is a volume of the engine's, and not one of ours.

    Docker and Podman keep one in ``volumes/NAME/_data``; containerd, under Kubernetes, the
    image's own ones in ``containers/ID/volumes/ID``.
    """
    if entry.target.startswith(HOME.encode() + b"/"):
        return False
    if entry.root.endswith(b"/_data"):
        return b"/volumes/" in entry.root
    parts = entry.root.split(b"/")[-4:]
    return parts[::2] == [b"containers", b"volumes"] and all(_is_id(p) for p in parts[1::2])


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
        # Directories of images, beside the tables that they share.
        os.path.isdir(images) and any(len(f) == 64 and f != own for f in os.listdir(images))
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
    if are_podmans(mounts):
        for name in ("/etc/passwd", "/etc/group"):
            _copy_accounts(name)


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


def _copy_accounts(path: str) -> None:
    """Add the lines that the engine has added to the image's file of accounts.

    Podman does so for a user or group that the image does not know.
    """
    place = resolve(path.encode())
    try:
        if os.stat(path).st_size <= os.stat(place).st_size:
            return
        with open(path, "rb", buffering=0) as file:
            given = file.readall() or b""
        with open(place, "r+b", buffering=0) as file:
            own = file.readall() or b""
            # At a later start it has them, and whatever the workload has made of it.
            if given.startswith(own):
                file.write(given[len(own) :])
    except FileNotFoundError:
        return


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
