"""Fill new volumes with what the image has at their place, as Docker does at creation.

The engine itself finds nothing there: the boot image has only mount points.  So
on a container's first start, and never again, each empty volume of the engine's
gets a copy.  Bind mounts and tmpfs get none, as under plain Docker.

A copy can be cut off at any point, by a store that fails or by SIGKILL.  So it is
made aside, in a directory `STAGE` of the volume, and moved to its place when it is
whole.  What is found there at the next start, of whatever container, is ours
beyond doubt: it is removed or moved.  All else in the volume is never touched.
"""

from __future__ import annotations

import fcntl
import os
import stat
from errno import EEXIST, ENOENT

from boot.mounts import Mount
from boot.placeholder import is_placeholder
from boot.rights import FILES, missing, options, set_mode
from boot.root import ROOT, is_volume, resolve
from boot.syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_RDONLY,
    MS_REMOUNT,
    mount,
    unmount,
)
from store.errors import BootError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

PEEK = ROOT[: -len(b"root")] + b"image"
"""Where the root is bound a second time, without the mounts on it."""


VOLUME = ROOT[: -len(b"root")] + b"fuse"
"""Where a volume is bound a second time, without the mounts in it."""

ACCOUNTS = (b"/etc/passwd", b"/etc/group")
"""Files that the boot image's own layer has for the engine, with no time of change."""

MTAB = (b"/etc/mtab", b"/proc/mounts")
"""The link that the engine makes in each container (moby: daemon/initlayer)."""
STAGE = b".bootfs-filling"
"""A directory in a volume, locked by who fills it: `_PART` of a copy, or a `_WHOLE` one."""
_PART, _WHOLE = b"part", b"whole"


def fill_new_volumes(mounts: list[Mount], directory: bytes) -> None:
    """Copy the image's content into each empty engine volume among ``mounts``, which are moved.

    The working ``directory`` does not count as content: the engine makes it before it
    looks what it may copy, and in the boot image it finds nothing else.

    Raises:
        BootError: the container lacks a right that this takes.

    """
    volumes = [m for m in mounts if is_volume(m)]
    if not volumes:
        return
    mount(ROOT, PEEK, None, MS_BIND)
    try:
        for entry in volumes:
            place = resolve(entry.target)
            source = PEEK + place[len(ROOT) :]
            if os.path.isdir(place) and os.path.isdir(source):
                others = [m.target for m in mounts if m.target != entry.target]
                inner = [resolve(path) for path in (*others, directory)]
                try:
                    _fill(source, place, entry, [m for m in inner if m.startswith(place + b"/")])
                except PermissionError as error:
                    raise BootError(
                        f"cannot fill the new volume {os.fsdecode(entry.target)} "
                        f"({error.strerror}): {_advice()}"
                    ) from None
    finally:
        unmount(PEEK, MNT_DETACH)


def _advice() -> str:
    """Return what to do where a volume may not be filled."""
    lacking = missing(FILES)
    if not lacking:
        return "mount one that is not empty there"
    return f"add {options(lacking)}, or mount one that is not empty there"


def _fill(source: bytes, place: bytes, entry: Mount, inner: list[bytes]) -> None:
    """Copy ``source`` to the volume at ``place``, if that is empty.

    The mount points of the mounts ``inner`` do not count: the engine makes them
    after it has filled a volume, and here that is before.
    """
    mount(place, VOLUME, None, MS_BIND)
    try:
        points = [path[len(place) + 1 :] for path in inner]
        stage = VOLUME + b"/" + STAGE

        def known(path: bytes) -> bytes | int | None:
            return _known(source, path, entry.target)

        while os.path.lexists(stage) or _holds_only(VOLUME, points, known):
            # One that is mounted read-only gets its content too.
            mount(None, VOLUME, None, MS_REMOUNT | MS_BIND | entry.flags & ~MS_RDONLY)
            lock = _lock_stage(stage)
            if lock is None:
                continue
            try:
                _fill_staged(VOLUME, lambda part: _copy_directory(source, part, {}), points, known)
            finally:
                os.close(lock)
            return
    finally:
        unmount(VOLUME, MNT_DETACH)


def _lock_stage(stage: bytes) -> int | None:
    """Make and lock the stage; return its descriptor, or None if who had it has removed it."""
    try:
        os.mkdir(stage, 0o700)
    except OSError as error:
        # Another container fills the volume now, or a copy was cut off.
        if error.errno != EEXIST:
            raise
    try:
        lock = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != ENOENT:
            raise
        return None
    fcntl.flock(lock, fcntl.LOCK_EX)
    if os.fstat(lock).st_nlink:
        return lock
    os.close(lock)
    return None


def fill_volume(
    entry: Mount,
    copy: Callable[[bytes], None],
    points: list[bytes],
    known: Callable[[bytes], bytes | int | None],
    covered: Collection[bytes] = (),
) -> None:
    """Fill a volume where it is mounted, if it is empty, by ``copy``.

    ``copy`` makes the content, all its attributes too, in the empty directory it is given.
    ``points``, in the volume, do not count, nor do placeholders, and directories, links and
    `ACCOUNTS` that the image has there: the engine fills volumes too, with what it finds in the
    boot image.  ``known`` returns what the image has at a path in the volume: a link's target,
    ``b""`` for a directory, the size of one of `ACCOUNTS`, or None.  ``covered`` are those of
    ``points`` on which something is mounted: they are neither looked at nor changed.

    Raises:
        BootError: the container lacks a right that this takes.

    """
    place = entry.target
    stage = place + b"/" + STAGE
    try:
        while os.path.lexists(stage) or _holds_only(place, points, known, covered):
            lock = _lock_stage(stage)
            if lock is None:
                continue
            try:
                _fill_staged(place, copy, points, known, covered)
            finally:
                os.close(lock)
            return
    except PermissionError as error:
        raise BootError(
            f"cannot fill the new volume {os.fsdecode(place)} ({error.strerror}): {_advice()}"
        ) from None


def _fill_staged(
    volume: bytes,
    copy: Callable[[bytes], None],
    points: list[bytes],
    known: Callable[[bytes], bytes | int | None],
    covered: Collection[bytes] = (),
) -> None:
    """Have a copy made in the volume's locked stage, unless one is there, and move it out."""
    stage = volume + b"/" + STAGE
    part, whole = stage + b"/" + _PART, stage + b"/" + _WHOLE
    if not os.path.lexists(whole):
        _remove_tree(part)
        try:
            if not _holds_only(volume, [*points, STAGE], known, covered):
                # Somebody has put something there: as under plain Docker it stays alone.
                return
            os.mkdir(part)
            copy(part)
            os.rename(part, whole)
        finally:
            if not os.path.lexists(whole):
                _remove_tree(stage)
    status = os.lstat(whole)
    _move_entries(
        whole,
        volume,
        {volume + b"/" + point for point in points},
        {volume + b"/" + point for point in covered},
    )
    _copy_attributes(whole, volume, status)
    _remove_tree(stage)
    os.utime(volume, ns=(status.st_atime_ns, status.st_mtime_ns))


def _move_entries(source: bytes, target: bytes, points: set[bytes], covered: set[bytes]) -> None:
    """Move what is in ``source`` to the directory ``target``, where at most mount points are."""
    for name in os.listdir(source):
        old, new = source + b"/" + name, target + b"/" + name
        if new in covered:
            continue
        if not os.path.lexists(new):
            os.rename(old, new)
            continue
        status = os.lstat(old)
        is_of_engine = is_placeholder(new) or _is_account(new, status.st_size)
        if (stat.S_ISLNK(status.st_mode) and os.path.islink(new)) or is_of_engine:
            os.rename(old, new)
        elif stat.S_ISDIR(status.st_mode) and stat.S_ISDIR(os.lstat(new).st_mode):
            _move_entries(old, new, points, covered)
            _copy_attributes(old, new, status)
        elif new in points and stat.S_ISREG(status.st_mode):
            # What is mounted upon cannot be replaced.
            _copy_bytes(old, new, status.st_size)
            _copy_attributes(old, new, status)
        elif stat.S_ISLNK(status.st_mode):
            # The working directory, which the engine made where it did not see this link.
            try:
                os.rmdir(new)
            except OSError:
                continue  # something is mounted on it or in it
            os.rename(old, new)


def _remove_tree(path: bytes) -> None:
    """Remove a directory, if it is there, with all that is in it."""
    if not os.path.lexists(path):
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(path)


def _known(source: bytes, path: bytes, target: bytes) -> bytes | int | None:
    """Return what the image has at ``path`` in its directory ``source``; see `fill_volume`."""
    if target + b"/" + path == MTAB[0]:
        return MTAB[1]
    if target + b"/" + path in ACCOUNTS:
        try:
            return os.lstat(source + b"/" + path).st_size
        except OSError:
            return None
    return _link_or_directory(source + b"/" + path)


def _is_account(path: bytes, size: int) -> bool:
    """Whether one of `ACCOUNTS` is there as the engine has copied it from the boot image."""
    status = os.lstat(path)
    is_named = any(path.endswith(account[len("/etc") :]) for account in ACCOUNTS)
    is_untimed = stat.S_ISREG(status.st_mode) and not status.st_mtime_ns
    return is_named and is_untimed and status.st_size == size


def _link_or_directory(path: bytes) -> bytes | None:
    """Return a link's target, ``b""`` of a directory, None of anything else."""
    try:
        return os.readlink(path)
    except OSError:
        return b"" if os.path.isdir(path) else None


def _holds_only(
    directory: bytes,
    paths: list[bytes],
    known: Callable[[bytes], bytes | int | None],
    covered: Collection[bytes] = (),
    place: bytes = b"",
) -> bool:
    """Whether all that is in ``directory`` are ``paths``, what leads to them, and what is known."""
    for name in os.listdir(directory):
        if place + name in covered:
            continue
        below = [path[len(name) + 1 :] for path in paths if (path + b"/").startswith(name + b"/")]
        inside = directory + b"/" + name
        found = _link_or_directory(inside)
        if not below and found is None and is_placeholder(inside):
            continue
        expected = known(place + name)
        if not below and isinstance(expected, int) and _is_account(inside, expected):
            continue
        if not below and (found is None or found != expected):
            return False
        if found == b"":
            further = [path for path in below if path]
            if not _holds_only(inside, further, known, covered, place + name + b"/"):
                return False
        elif below and os.lstat(inside).st_size:
            return False
    return True


def _copy_directory(source: bytes, target: bytes, linked: dict[int, bytes]) -> None:
    """Copy the entries of a directory, then its attributes, to ``target``, which exists."""
    with os.scandir(source) as entries:
        for entry in entries:
            _copy(entry.path, target + b"/" + entry.name, linked)
    _copy_attributes(source, target, os.lstat(source))


def _copy(source: bytes, target: bytes, linked: dict[int, bytes]) -> None:
    status = os.lstat(source)
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        first = linked.setdefault(status.st_ino, target)
        if first != target:
            os.link(first, target, follow_symlinks=False)
            return
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(target)
        _copy_directory(source, target, linked)
        return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(status.st_mode):
        _copy_bytes(source, target, status.st_size)
    else:
        os.mknod(target, status.st_mode, status.st_rdev)
    _copy_attributes(source, target, status)


def _copy_bytes(source: bytes, target: bytes, size: int) -> None:
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        done = 0
        while done < size:
            count = os.sendfile(writer, reader, done, min(size - done, 1 << 30))
            if not count:
                break
            done += count
    finally:
        os.close(reader)
        os.close(writer)


def _copy_attributes(source: bytes, target: bytes, status: os.stat_result) -> None:
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        set_mode(target, stat.S_IMODE(status.st_mode), status.st_gid)
    for name in os.listxattr(source, follow_symlinks=False):
        os.setxattr(
            target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False
        )
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(target, ns=times, follow_symlinks=False)
