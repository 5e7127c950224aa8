"""The tree of an image, made in a root that is there already: every name, no contents.

Directories first, then all else.  Where a placeholder stands, what is made takes its place at the
very end: who runs ``docker exec`` in the first moments waits for all that his program needs.
"""

from __future__ import annotations

import os
import stat
from errno import EACCES, EEXIST, EMLINK, ENOTDIR, ENOTEMPTY, ENOTSUP, EPERM, EXDEV
from time import monotonic, sleep

from boot.apart import make_apart
from boot.config import MOUNTS
from boot.log import log
from boot.placeholder import is_placeholder
from boot.rights import FILES, missing, options, set_mode
from store.errors import BootError, FormatError
from store.format.erofslayout import FILE_TYPES, S_IFDIR, S_IFLNK, S_IFREG

FROM_ENGINE = (b"etc/passwd", b"etc/group")
"""Files that the boot image's own layer holds, whole, for the engine; Podman adds lines to them."""
OF_ENGINE = frozenset(
    (b".dockerenv", b"dev/console", b"etc/hostname", b"etc/hosts", b"etc/mtab", b"etc/resolv.conf")
)
"""Empty files, and a link, of the engine or the boot image, where the image may have its own."""
STAGE = f"{MOUNTS}/root".encode()
"""A directory of the boot image's, in which mode ``lease`` mounts nothing."""
REPLACED_S = 1.0
"""An engine that copies something in removes what is there, and then makes the new file: what has
gone is waited for so long."""
_DIRECTORY = FILE_TYPES[S_IFDIR]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from boot.lease.copied import Copied
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
        self,
        image: Image,
        place: bytes,
        make_file: Callable[[bytes, bytes, bytes, Inode], None],
        copied: Copied | None = None,
    ) -> None:
        """Make nothing yet.

        ``make_file`` makes a regular file that has contents: it gets the directory's path
        from the root, the name in it, the path at which to make it, and the inode.  That path is
        absolute, or relative to the directory, which is the working directory.  It raises
        `FileExistsError` where something is there.

        ``copied`` says what is to stay where the place is the container's root, and None where it
        is empty.
        """
        self._image = image
        self._place = place
        self._make_file = make_file
        self._copied = copied
        self._placeholders = copied.placeholders if copied is not None else {}
        self._links: dict[int, bytes] = {}
        """Where the first name of an inode with several is, by nid."""
        self._stage = STAGE
        """Where files are made that are to take the place of placeholders."""
        self._moves = False
        """Whether `_stage` lies apart from what there is on the disk (boot/apart.py)."""
        self._there = {b""}
        """Directories that were there: those in them that were not are made in `_stage`, if so."""
        self._staged: list[tuple[bytes, bytes]] = []
        """What is made in `_stage`: the path there, and where it is to go."""

    def build(self, directories: list[Directory]) -> None:
        """Make all of ``directories`` and what is in them; leaves the working directory elsewhere.

        Raises:
            BootError: it cannot be made; the message says which name, and why.
            FormatError: the bootstrap is damaged.

        """
        if self._copied is not None:
            self._guarded(STAGE, self._open_stage)
        for directory in directories:
            self._guarded(directory.path, self._make_directory, directory)
        for directory in directories:
            os.chdir(os.path.join(self._place, directory.path))
            placeholders = self._placeholders.get(directory.path, ())
            for name, nid, kind in directory.entries:
                if kind == _DIRECTORY:
                    continue
                if name in placeholders:
                    self._guarded(
                        *(directory.path + b"/" + name, self._make_aside),
                        *(directory.path, name, self._image.inode(nid)),
                    )
                else:
                    self._make_entry(directory.path, name, nid)

    def _open_stage(self) -> None:
        _clear(STAGE)
        apart = make_apart(STAGE)
        self._moves = apart is not None
        self._stage = apart or STAGE

    def finish(self, directories: list[Directory]) -> None:
        """Put programs in the place of placeholders, then give the directories their attributes.

        Raises:
            BootError: it cannot be done.

        """
        for staged, path in self._staged:
            self._guarded(path, _put_in_place, staged, path)
        if self._stage != STAGE:
            self._guarded(self._stage, os.rmdir, self._stage)
        for directory in reversed(directories):
            inode = self._image.inode(directory.nid)
            path = os.path.join(self._place, directory.path)
            self._guarded(directory.path, self.set_attributes, path, inode)

    def _make_directory(self, directory: Directory) -> None:
        path = os.path.join(self._place, directory.path)
        # Setgid comes last: what is made in it would take the directory's group.
        mode = self._image.inode(directory.nid).mode & 0o777 | 0o700
        try:
            self._make_new_directory(directory.path, path, mode)
        except FileExistsError:
            # Of the boot image, or on the way to a mount.
            self._there.add(directory.path)
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                if status.st_uid:
                    # Who may not override rights makes files in his own directories alone.
                    os.chown(path, 0, -1)
                os.chmod(path, mode)
                return
            is_copied = self._copied is not None and self._copied.has(directory.path)
            if is_copied and os.path.isfile(path):
                shown = os.fsdecode(directory.path)
                log(f"/{shown} is a directory of the image: the file that was copied there is gone")
            os.unlink(path)
            os.mkdir(path, mode)

    def _make_new_directory(self, name: bytes, path: bytes, mode: int) -> None:
        if not self._moves or name.rpartition(b"/")[0] not in self._there:
            os.mkdir(path, mode)
            return
        if os.path.lexists(path):
            raise FileExistsError
        made = self._stage + b"/new"
        os.mkdir(made, mode)
        try:
            os.rename(made, path)
        except OSError as error:
            os.rmdir(made)
            if error.errno == EXDEV:
                # A storage driver may move no directories.
                self._moves = False
                os.mkdir(path, mode)
            elif error.errno in (EEXIST, ENOTDIR, ENOTEMPTY):
                raise FileExistsError from None
            else:
                raise

    def _make_entry(self, directory: bytes, name: bytes, nid: int) -> None:
        inode = self._image.inode(nid)
        try:
            self._make(directory, name, name, inode)
        except FileExistsError:
            self._guarded(directory + b"/" + name, self._meet, directory, name, inode)
        except OSError as error:
            raise explained(directory + b"/" + name, error) from None

    def _meet(self, directory: bytes, name: bytes, inode: Inode) -> None:
        """Make what is to be at a name where something is already, or leave that."""
        path = os.path.join(directory, name)
        status = _await(name)
        if status is None:
            self._make(directory, name, name, inode)
            return
        kind = stat.S_IFMT(status.st_mode)
        if kind == S_IFDIR:
            log(f"/{os.fsdecode(path)} is a directory here, which is used: it stays one")
        elif kind == S_IFLNK and inode.kind == S_IFLNK and self._has_target(name, inode):
            if inode.nlink > 1:
                # In the boot image each of its names is a link of its own.
                os.unlink(name)
                self._make(directory, name, name, inode)
            elif not _is_like(status, inode):
                self.set_attributes(name, inode)
        elif is_placeholder(name):
            self._make_aside(directory, name, inode)
        elif self._stays(path, status, inode):
            self._forget(path, inode)
        else:
            os.unlink(name)
            self._make(directory, name, name, inode)

    def _make_aside(self, directory: bytes, name: bytes, inode: Inode) -> None:
        """Make what is to take a placeholder's place."""
        path = os.path.join(directory, name)
        staged = self._stage + b"/%d" % len(self._staged)
        self._forget(path, inode)
        self._make(directory, name, staged, inode)
        self._staged.append((staged, os.path.join(self._place, path)))

    def _stays(self, path: bytes, status: os.stat_result, inode: Inode) -> bool:
        kind = stat.S_IFMT(status.st_mode)
        if path in FROM_ENGINE:
            is_ours = status.st_mtime_ns == 0
            if is_ours and kind == inode.kind:
                self.set_attributes(os.path.join(self._place, path), inode)
            return kind == inode.kind or not is_ours
        if path in OF_ENGINE and (kind == S_IFLNK or not status.st_size):
            return False
        # An earlier start that was cut off has left no other kind than the image has.
        return kind != inode.kind or self._copied is None or self._copied.has(path)

    def _has_target(self, name: bytes, inode: Inode) -> bool:
        target: bytes = self._image.readlink(inode)
        return os.readlink(name) == target

    def _forget(self, path: bytes, inode: Inode) -> None:
        """Let no other name of ``inode`` be linked to what is at ``path``, which is not it."""
        if self._links.get(inode.nid) == os.path.join(self._place, path):
            del self._links[inode.nid]

    def _make(self, directory: bytes, name: bytes, place: bytes, inode: Inode) -> None:
        """Make an entry at ``place``: its name in the working directory, or a path in `_stage`."""
        if inode.nlink > 1:
            path = os.path.join(self._place, directory, place)
            first = self._links.setdefault(inode.nid, path)
            if first != path:
                try:
                    os.link(first, place, follow_symlinks=False)
                except OSError as error:
                    # More names than this file system gives one file, 65,000 on ext4.
                    if error.errno != EMLINK or inode.data_offset:
                        raise
                    self._links[inode.nid] = path
                else:
                    return
        kind = inode.kind
        if kind == S_IFREG:
            if inode.data_offset:
                self._make_file(directory, name, place, inode)
                return
            os.close(os.open(place, NEW_FILE, inode.mode & 0o777))
        elif kind == S_IFLNK:
            os.symlink(self._image.readlink(inode), place)
        else:
            os.mknod(place, inode.mode, os.makedev(*inode.rdev))
        self.set_attributes(place, inode)

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


def _clear(directory: bytes) -> None:
    """Remove what an earlier start has left in a directory."""
    for name in os.listdir(directory):
        path = directory + b"/" + name
        if os.path.isdir(path) and not os.path.islink(path):
            _clear(path)
            os.rmdir(path)
        else:
            os.unlink(path)


def _put_in_place(staged: bytes, path: bytes) -> None:
    """Move what was made to ``path``, unless something else has been copied there meanwhile."""
    if is_placeholder(path) or _await(path) is None:
        os.rename(staged, path)
    else:
        os.unlink(staged)


def _await(path: bytes) -> os.stat_result | None:
    """Return what is at ``path``, where something was; None: nobody puts something else there."""
    deadline_s = monotonic() + REPLACED_S
    while True:
        try:
            return os.lstat(path)
        except FileNotFoundError:
            if monotonic() > deadline_s:
                return None
        sleep(0.001)


def _is_like(status: os.stat_result, inode: Inode) -> bool:
    """Whether a link has the attributes of ``inode``."""
    time = inode.mtime_s * 1_000_000_000 + inode.mtime_ns
    found = (status.st_uid, status.st_gid, status.st_mtime_ns)
    return found == (inode.uid, inode.gid, time) and not inode.xattrs_size


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
