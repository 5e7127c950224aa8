"""The tree of an image, made in a root that is there already: every name, no contents.

Directories first, then all else, the directories of programs before the others: who
runs ``docker exec`` in the first moments finds a program, whose first file makes him
wait (boot/lease/holder.py), instead of nothing.
"""

from __future__ import annotations

import os
import stat
from errno import EACCES, EMLINK, ENOTSUP, EPERM

from boot.log import log
from boot.rights import FILES, missing, options, set_mode
from store.errors import BootError, FormatError
from store.format.erofslayout import FILE_TYPES, S_IFDIR, S_IFLNK, S_IFREG

PROGRAMS = (b"usr/local/sbin", b"usr/local/bin", b"usr/sbin", b"usr/bin", b"sbin", b"bin")
"""Where Docker's PATH leads."""
FROM_ENGINE = (b"etc/passwd", b"etc/group")
"""Files that the boot image's own layer holds, whole, for the engine; Podman adds lines to them."""
_DIRECTORY, _LINK, _REGULAR = (FILE_TYPES[kind] for kind in (S_IFDIR, S_IFLNK, S_IFREG))

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from store.format.erofs import Image, Inode


class Directory:
    """A directory of the image: where it is, and the entries in it that are to be made."""

    __slots__ = ("entries", "nid", "path")

    def __init__(self, path: bytes, nid: int, entries: list[tuple[bytes, int, int]]) -> None:
        self.path = path
        """From the tree's root, without a slash at either end; empty for the root itself."""
        self.nid = nid
        self.entries = entries
        """Name, nid and file type, without ``.`` and ``..``, sorted by name."""


def iter_directories(image: Image, top: int, hidden: set[bytes]) -> Iterator[Directory]:
    """Yield the directory ``top`` and those below it, each before what is in it.

    ``hidden`` are paths on which something is mounted: they, and what is below them,
    are left out.

    Raises:
        FormatError: the bootstrap is damaged.

    """
    # Few paths in many directories: by parent, only those directories pay for them.
    names: dict[bytes, set[bytes]] = {}
    for path in hidden:
        parent, _, name = path.rpartition(b"/")
        names.setdefault(parent, set()).add(name)
    seen = {top}
    todo = [(b"", top)]
    while todo:
        path, nid = todo.pop()
        left_out = names.get(path, ())
        entries = []
        below = []
        prefix = path + b"/" if path else b""
        for name, child, kind in image.iter_dir(image.inode(nid)):
            if name in (b".", b"..") or name in left_out:
                continue
            entries.append((name, child, kind))
            if kind == _DIRECTORY:
                if child in seen:
                    raise FormatError("bootstrap", child, f"directory {child} is in two places")
                seen.add(child)
                below.append((prefix + name, child))
        todo += reversed(below)
        yield Directory(path, nid, entries)


class Builder:
    """Makes a tree at ``place``, an absolute path, which exists."""

    def __init__(
        self, image: Image, place: bytes, make_file: Callable[[bytes, bytes, Inode], None]
    ) -> None:
        """Make nothing yet.

        ``make_file`` makes a regular file that has contents: it gets the directory's path
        from the root, a name in the working directory, which is that directory, and the
        inode.  It raises `FileExistsError` where something of that name is.
        """
        self._image = image
        self._place = place
        self._make_file = make_file
        self._links: dict[int, bytes] = {}
        """Where the first name of an inode with several is, by nid."""

    def build(self, directories: list[Directory]) -> None:
        """Make all of ``directories`` and what is in them; leaves the working directory elsewhere.

        Raises:
            BootError: it cannot be made; the message says which name, and why.
            FormatError: the bootstrap is damaged.

        """
        for directory in directories:
            self._guarded(directory.path, self._make_directory, directory)
        for directory in sorted(directories, key=_turn):
            os.chdir(os.path.join(self._place, directory.path))
            for name, nid, kind in directory.entries:
                if kind != _DIRECTORY:
                    self._make_entry(directory.path, name, nid)

    def finish(self, directories: list[Directory]) -> None:
        """Give the directories their attributes, after all that is made in them.

        Raises:
            BootError: they cannot be given.

        """
        for directory in reversed(directories):
            inode = self._image.inode(directory.nid)
            path = os.path.join(self._place, directory.path)
            self._guarded(directory.path, self.set_attributes, path, inode)

    def _make_directory(self, directory: Directory) -> None:
        path = os.path.join(self._place, directory.path)
        # Setgid comes last: what is made in it would take the directory's group.
        mode = self._image.inode(directory.nid).mode & 0o777 | 0o700
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            # A mount point, or on the way to one.
            if os.path.isdir(path) and not os.path.islink(path):
                os.chmod(path, mode)
                return
            os.unlink(path)
            os.mkdir(path, mode)

    def _make_entry(self, directory: bytes, name: bytes, nid: int) -> None:
        inode = self._image.inode(nid)
        try:
            self._make(directory, name, inode)
        except FileExistsError:
            shown = directory + b"/" + name
            if shown in FROM_ENGINE and os.lstat(name).st_size >= inode.size:
                self.set_attributes(name, inode)
                return
            if os.path.isdir(name) and not os.path.islink(name):
                # The engine has mounted something below it.
                log(f"/{os.fsdecode(shown)} leads to a mount: it stays a directory")
                return
            self._guarded(shown, os.unlink, name)
            self._guarded(shown, self._make, directory, name, inode)
        except OSError as error:
            raise explained(directory + b"/" + name, error) from None

    def _make(self, directory: bytes, name: bytes, inode: Inode) -> None:
        if inode.nlink > 1:
            first = self._links.setdefault(inode.nid, os.path.join(self._place, directory, name))
            if first != os.path.join(self._place, directory, name):
                try:
                    os.link(first, name, follow_symlinks=False)
                except OSError as error:
                    # More names than this file system gives one file, 65,000 on ext4.
                    if error.errno != EMLINK or inode.data_offset:
                        raise
                    self._links[inode.nid] = os.path.join(self._place, directory, name)
                else:
                    return
        kind = inode.kind
        if kind == S_IFREG:
            if inode.data_offset:
                self._make_file(directory, name, inode)
                return
            os.close(os.open(name, NEW_FILE, inode.mode & 0o777))
        elif kind == S_IFLNK:
            os.symlink(self._image.readlink(inode), name)
        else:
            os.mknod(name, inode.mode, os.makedev(*inode.rdev))
        self.set_attributes(name, inode)

    def set_attributes(self, path: bytes | int, inode: Inode) -> None:
        """Give a path or descriptor the owner, mode, extended attributes and times of ``inode``."""
        is_link = inode.kind == S_IFLNK
        follow = isinstance(path, int)
        if inode.uid or inode.gid or not follow:
            if follow:
                os.chown(path, inode.uid, inode.gid)
            else:
                os.chown(path, inode.uid, inode.gid, follow_symlinks=False)
        if not is_link and (not follow or inode.mode & 0o7000):
            # After the owner, whose change takes setuid and setgid away.
            set_mode(path, stat.S_IMODE(inode.mode), inode.gid)
        if inode.xattrs_size:
            for name, value in self._image.xattrs(inode).items():
                _set_xattr(path, name, value)
        time = inode.mtime_s * 1_000_000_000 + inode.mtime_ns
        if follow:
            os.utime(path, ns=(time, time))
        else:
            os.utime(path, ns=(time, time), follow_symlinks=False)

    def _guarded(self, shown: bytes, action: Callable[..., None], *arguments: object) -> None:
        try:
            action(*arguments)
        except OSError as error:
            raise explained(shown, error) from None


NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def _turn(directory: Directory) -> bool:
    """Order directories: the root and those of programs first, else as they come."""
    return bool(directory.path) and directory.path not in PROGRAMS


def _set_xattr(path: bytes | int, name: bytes, value: bytes) -> None:
    try:
        if isinstance(path, int):
            os.setxattr(path, name, value)
        else:
            os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        # As the engine does for an image: what this file system or a container may not have.
        if error.errno not in (ENOTSUP, EPERM) or name == b"security.capability":
            raise
        log(f"the attribute {os.fsdecode(name)} cannot be set here ({error.strerror}): left out")


def explained(path: bytes, error: OSError, deed: str = "make") -> BootError:
    """Return what to say of an error at ``path`` of the tree, which ``deed`` was to be done to."""
    what = f"cannot {deed} /{os.fsdecode(path.lstrip(b'/'))} in the root: {error.strerror}"
    if error.errno in (EPERM, EACCES) and (lacking := missing(FILES)):
        what += f"; add {options(lacking)}"
    return BootError(what)
