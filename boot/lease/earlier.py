"""Find what an earlier start of the container made and did not fill."""

from __future__ import annotations

import os
import stat

from store.format.erofslayout import FILE_TYPES, S_IFREG

_REGULAR = FILE_TYPES[S_IFREG]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from boot.lease.journal import Journal
    from boot.lease.skeleton import Directory
    from store.format.erofs import Image, Inode


def find(
    image: Image,
    directories: list[Directory],
    journal: Journal,
    found: Callable[[bytes, Inode, os.stat_result], None],
) -> None:
    """Call ``found`` for each file of an earlier start that is not filled, wherever it is now."""
    lost: dict[int, Inode] = {}
    seen: dict[int, bytes] = {}
    for path, inode in iter_files(image, directories):
        if inode.nid in seen:
            if not journal.is_own:
                _link_again(seen[inode.nid], path, journal, inode)
            continue
        number, ctime_ns = journal.row(inode.ordinal)
        if not number:
            continue  # nothing was made of it, for something was mounted there
        status = _status(path)
        if ctime_ns and (journal.is_same_boot or status is None or status.st_ctime_ns != ctime_ns):
            continue
        # Filled under a kernel that has ended, and not touched since: perhaps it never
        # reached the disk.
        if status is None or not _is_same(journal, number, inode, status):
            if not ctime_ns:
                lost[number] = inode
            continue
        seen[inode.nid] = path
        found(path, inode, status)
    if lost and journal.is_own:
        for path, status in _iter_root(os.lstat("/").st_dev):
            moved = lost.pop(status.st_ino, None)
            if moved is not None and moved.nid not in seen and stat.S_ISREG(status.st_mode):
                seen[moved.nid] = path
                found(path, moved, status)


def _link_again(first: bytes, path: bytes, journal: Journal, inode: Inode) -> None:
    """Make ``path`` a name of ``first`` again.

    In the layer of a committed image it is one, but to write to one name there parts it
    from the others.
    """
    status = _status(path)
    if status is None or not _is_same(journal, 0, inode, status):
        return
    directory = path.rpartition(b"/")[0] or b"/"
    times = os.stat(directory)
    os.close(os.open(first, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    os.unlink(path)
    os.link(first, path, follow_symlinks=False)
    os.utime(directory, ns=(times.st_atime_ns, times.st_mtime_ns))


def iter_files(image: Image, directories: list[Directory]) -> Iterator[tuple[bytes, Inode]]:
    """Yield absolute path and inode of each regular file that has contents."""
    for directory in directories:
        prefix = b"/" + directory.path + b"/" if directory.path else b"/"
        for name, nid, kind in directory.entries:
            if kind == _REGULAR:
                inode = image.inode(nid)
                if inode.data_offset:
                    yield prefix + name, inode


def _is_same(journal: Journal, number: int, inode: Inode, status: os.stat_result) -> bool:
    """Whether what is at a file's path is the file that was made there."""
    if not stat.S_ISREG(status.st_mode):
        return False
    if journal.is_own:
        return status.st_ino == number
    # A copy of it, in the layer of a committed image.
    time = inode.mtime_s * 1_000_000_000 + inode.mtime_ns
    return status.st_size == inode.size and status.st_mtime_ns == time


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _iter_root(device: int) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield all that is in the root's own file system."""
    todo = [b"/"]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if status.st_dev != device:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                else:
                    yield entry.path, status
