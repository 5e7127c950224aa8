"""Fill new volumes where nothing may be mounted: as boot/volumes.py does, straight from the image.

Whole, before the workload starts: a volume outlives the container, and other containers
see it, so nothing in it may wait for this one.
"""

from __future__ import annotations

import os
from errno import EROFS

from boot.lease.eager import make_tree
from boot.lease.skeleton import iter_directories
from boot.mounts import Mount
from boot.placeholder import is_placeholder
from boot.root import LINK_LIMIT, is_volume
from boot.volumes import ACCOUNTS, MTAB, fill_volume
from store.errors import BootError
from store.format.erofslayout import S_IFDIR, S_IFLNK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from store.format.erofs import Image
    from store.read.image import ImageReader


def fill_new_volumes(image: Image, reader: ImageReader, mounts: list[Mount]) -> None:
    """Make the image's content in each empty engine volume among ``mounts``.

    Raises:
        BootError: the container lacks a right that this takes.

    """
    # Making a tree leaves the working directory where it may be removed.
    directory = os.getcwdb()
    for entry in mounts:
        if not is_volume(entry):
            continue
        nid = find(image, entry.target)
        if nid is None or image.inode(nid).kind != S_IFDIR or not os.path.isdir(entry.target):
            continue
        prefix = entry.target + b"/"
        # What is beneath another mount cannot be reached.
        covered = {m.target[len(prefix) :] for m in mounts if m.target.startswith(prefix)}
        # Nor is the working directory content, which the engine makes.
        points = [*covered]
        if directory.startswith(prefix):
            points.append(directory[len(prefix) :])

        def copy(part: bytes, nid: int = nid, covered: set[bytes] = covered) -> None:
            make_tree(image, reader, list(iter_directories(image, nid, covered)), None, part)

        def known(path: bytes, top: bytes = entry.target) -> bytes | int | None:
            return _known(image, top + b"/" + path)

        try:
            fill_volume(entry, copy, points, known, covered)
        except OSError as error:
            if error.errno != EROFS:
                raise
            if not _has_all(image, nid, covered, entry.target):
                raise BootError(
                    f"cannot fill the new volume {os.fsdecode(entry.target)}, which is mounted "
                    "read-only: mount it without that once, or one that is not empty"
                ) from None


def _has_all(image: Image, nid: int, covered: set[bytes], place: bytes) -> bool:
    """Whether there is something at each name that the image has below ``place``."""
    paths = (
        os.path.join(place, directory.path, name)
        for directory in iter_directories(image, nid, covered)
        for name, _, _ in directory.entries
    )
    return all(os.path.lexists(path) and not is_placeholder(path) for path in paths)


def _known(image: Image, path: bytes) -> bytes | int | None:
    """Return what the image has at a path; see `fill_volume`."""
    if path == MTAB[0]:
        return MTAB[1]
    directory, _, name = path.rpartition(b"/")
    above = find(image, directory)
    if above is None or image.inode(above).kind != S_IFDIR:
        return None
    nid = image.lookup(image.inode(above), name)
    if nid is None:
        return None
    inode = image.inode(nid)
    if inode.kind == S_IFLNK:
        return image.readlink(inode)
    if path in ACCOUNTS:
        return inode.size
    return b"" if inode.kind == S_IFDIR else None


def find(image: Image, path: bytes) -> int | None:
    """Return the nid of what ``path`` leads to in the image, links followed, or None."""
    done: list[int] = [image.root_nid]
    todo = [part for part in reversed(path.split(b"/")) if part]
    links = 0
    while todo:
        part = todo.pop()
        if part in (b".", b".."):
            if part == b".." and len(done) > 1:
                done.pop()
            continue
        inode = image.inode(done[-1])
        nid: int | None = image.lookup(inode, part) if inode.kind == S_IFDIR else None
        if nid is None:
            return None
        child = image.inode(nid)
        if child.kind != S_IFLNK:
            done.append(nid)
            continue
        links += 1
        if links > LINK_LIMIT:
            raise BootError(f"{os.fsdecode(path)}: too many links")
        target = image.readlink(child)
        if target.startswith(b"/"):
            del done[1:]
        todo.extend(p for p in reversed(target.split(b"/")) if p)
    return done[-1]
