"""A directory of this machine as a tree: what a container would see of it as its root."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from converter.spool import os_errors_at
from converter.tarreader import (
    DIRECTORY_MEMORY,
    NODE_MEMORY,
    RUN_MEMORY,
    XATTR_MEMORY,
    Budget,
)
from converter.tree import Content, Node, Segment
from store.errors import ConvertError, UsageError

_HOST_XATTRS = (b"security.selinux", b"security.ima", b"security.evm")
"""What the machine says of its files, and not the files of themselves."""
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class _OnDisk:
    """The bytes of one file, as it was when the directory was walked."""

    __slots__ = ("_path", "_state")

    def __init__(self, path: bytes, found: os.stat_result) -> None:
        self._path = path
        self._state = _state(found)

    def pread(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``; see `Blob`.

        Raises:
            ConvertError: the file has changed since.
            AccessDenied: it may not be read.

        """
        shown = _shown(self._path)
        with os_errors_at(Path(shown), "cannot be read"):
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                data = bytearray()
                while len(data) < size:
                    piece = os.pread(fd, size - len(data), offset + len(data))
                    if not piece:
                        break
                    data += piece
                is_same = _state(os.fstat(fd)) == self._state
            finally:
                os.close(fd)
        if len(data) != size or not is_same:
            raise ConvertError(
                f"{shown}: changed while it was read; convert a directory that nobody writes to"
            )
        return bytes(data)


def read_directory(path: Path, budget: Budget) -> Node:
    """Return the tree below a directory; contents are read when somebody asks for them.

    Owners, modes, times, xattrs, devices, hard links and holes are those on disk, but for
    labels that security modules of the machine gave its files.  Sockets are left out, as
    engines do: they are of a process that runs.

    Raises:
        NotFound: there is no such directory.
        AccessDenied: something in it may not be read.
        UsageError: something is mounted below it.
        ConvertError: it changes meanwhile, or ``budget`` is used up.

    """
    _check_mounts(path)
    return _Walk(budget).read(os.fsencode(path))


class _Walk:
    """One walk over a directory."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._linked: dict[tuple[int, int], Node] = {}
        """Files with several names, by device and inode number."""

    def read(self, top: bytes) -> Node:
        """Return the tree of the directory ``top``."""
        root = self._read(top, follow=True)
        pending = [(top, root)]
        while pending:
            path, directory = pending.pop()
            with os_errors_at(Path(_shown(path)), "cannot be listed"):
                names = sorted(os.listdir(path))
            for name in names:
                below = os.path.join(path, name)
                node = self._read(below)
                if node.kind == stat.S_IFSOCK:
                    continue
                directory.children[name] = node
                if node.is_directory:
                    pending.append((below, node))
        return root

    def _read(self, path: bytes, *, follow: bool = False) -> Node:
        with os_errors_at(Path(_shown(path)), "cannot be read"):
            found = os.stat(path, follow_symlinks=follow)
            key = found.st_dev, found.st_ino
            is_linked = found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode)
            if is_linked and key in self._linked:
                return self._linked[key]
            node = Node(
                mode=found.st_mode,
                uid=found.st_uid,
                gid=found.st_gid,
                mtime_ns=found.st_mtime_ns,
                device=_device(found),
            )
            xattrs = _xattrs(path, follow=follow)
            if xattrs:
                node.xattrs = xattrs
            if node.is_symlink:
                node.target = os.readlink(path)
            elif node.is_regular:
                node.content = _content(path, found)
        self._take(path, node)
        if is_linked:
            self._linked[key] = node
        return node

    def _take(self, path: bytes, node: Node) -> None:
        memory = DIRECTORY_MEMORY if node.is_directory else NODE_MEMORY
        memory += len(path) + len(node.target) + RUN_MEMORY * len(node.content.segments)
        memory += sum(XATTR_MEMORY + len(name) + len(v) for name, v in node.xattrs.items())
        self._budget.take(_shown(path), memory)


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _device(found: os.stat_result) -> tuple[int, int]:
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        return os.major(found.st_rdev), os.minor(found.st_rdev)
    return 0, 0


def _xattrs(path: bytes, *, follow: bool) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError as error:
        # A file system without xattrs, and not a file whose xattrs cannot be told.
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {
        os.fsencode(name): os.getxattr(path, name, follow_symlinks=follow)
        for name in names
        if os.fsencode(name) not in _HOST_XATTRS
    }


def _content(path: bytes, found: os.stat_result) -> Content:
    """Return a file's contents; what takes no room on the disk is a hole."""
    size = found.st_size
    if not size:
        return Content(0)
    blob = _OnDisk(path, found)
    if found.st_blocks * 512 >= size:
        return Content(size, (Segment(0, size, blob, 0),))
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return Content(size, tuple(_find_runs(fd, size, blob)))
    finally:
        os.close(fd)


def _find_runs(fd: int, size: int, blob: _OnDisk) -> list[Segment]:
    runs: list[Segment] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # only a hole is left
            raise
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start < at:
            runs.append(Segment(start, at - start, blob, start))
    return runs


def _check_mounts(path: Path) -> None:
    """Return when nothing is mounted below a directory: /proc is no part of an image.

    Raises:
        UsageError: something is.

    """
    top = os.fsencode(os.path.realpath(path))
    base = top if top.endswith(b"/") else top + b"/"
    with os_errors_at(Path("/proc/self/mountinfo"), "cannot be read"):
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    for line in lines:
        # proc(5): the fifth field is the mount point, spaces and the like in octal.
        point = _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
        if point.startswith(base) and point != base:
            raise UsageError(
                f"{path}: {_shown(point)} is a mount; unmount it, or bind-mount the directory "
                "elsewhere (mount --bind) and convert that"
            )


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
