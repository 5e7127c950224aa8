"""Two boot images compared, path by path.

Contents are compared by their chunks first: places of the same chunk have the same
bytes.  Small files of a directory are cut as one stream, so that a change in one of them
may cut its neighbours differently: only their bytes can tell then.
"""

from __future__ import annotations

import stat
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from converter.bootview import BootView
from converter.bootwalk import iter_paths
from store.format.chunkindex import HOLE, ChunkIndex
from store.format.erofs import Image, Inode
from store.read.image import ImageReader

STEP = 1 << 20
_MARKS = {"added": "+", "removed": "-", "changed": "~", "undecided": "?"}


@dataclass(frozen=True, slots=True)
class Change:
    """A path that is not the same in both images."""

    kind: str
    """``added``, ``removed``, ``changed``, or ``undecided``: the bytes may be the same."""
    path: bytes
    what: tuple[str, ...] = ()
    """What changed: ``kind``, ``mode``, ``owner``, ``mtime``, ``xattrs``, ``device``,
    ``target``, ``size``, ``bytes``, ``links``."""

    def __str__(self) -> str:
        shown = self.path.decode("utf-8", "backslashreplace")
        what = f" ({', '.join(self.what)})" if self.what else ""
        return f"{_MARKS[self.kind]} {shown}{what}"


class _Side:
    """One of the images."""

    def __init__(self, view: BootView) -> None:
        self.image: Image = view.read_tree()
        self.index: ChunkIndex = view.index
        self.inodes: dict[bytes, Inode] = dict(iter_paths(self.image))
        first: dict[int, bytes] = {}
        for path, inode in self.inodes.items():
            first.setdefault(inode.nid, path)
        self.first = {path: first[inode.nid] for path, inode in self.inodes.items()}
        """The first name of each path's file."""


class TreeDiff:
    """The changes from one boot image to another; memory for every path of both.

    ``readers`` read their contents, where these must be compared; None if they cannot be.
    """

    def __init__(
        self, old: BootView, new: BootView, readers: tuple[ImageReader, ImageReader] | None
    ) -> None:
        self._old = _Side(old)
        self._new = _Side(new)
        self._readers = readers
        self._known: dict[tuple[int, int], str] = {}

    def iter_changes(self) -> Iterator[Change]:
        """Yield every change, in path order.

        Raises:
            FormatError: a bootstrap is damaged.
            BootfsError: contents that must be compared cannot be read.

        """
        paths = self._old.inodes.keys() | self._new.inodes.keys()
        for path in sorted(paths, key=lambda path: path.split(b"/")):
            old, new = self._old.inodes.get(path), self._new.inodes.get(path)
            if old is None:
                yield Change("added", path)
            elif new is None:
                yield Change("removed", path)
            else:
                change = self._compare(path, old, new)
                if change is not None:
                    yield change

    def _compare(self, path: bytes, old: Inode, new: Inode) -> Change | None:
        if old.kind != new.kind:
            return Change("changed", path, ("kind",))
        pairs: list[tuple[str, object, object]] = [
            ("mode", old.mode, new.mode),
            ("owner", (old.uid, old.gid), (new.uid, new.gid)),
            ("mtime", (old.mtime_s, old.mtime_ns), (new.mtime_s, new.mtime_ns)),
            ("xattrs", self._old.image.xattrs(old), self._new.image.xattrs(new)),
            ("device", old.rdev, new.rdev),
        ]
        if stat.S_ISLNK(old.mode):
            targets = self._old.image.readlink(old), self._new.image.readlink(new)
            pairs.append(("target", *targets))
        if stat.S_ISREG(old.mode):
            pairs.append(("size", old.size, new.size))
        if not stat.S_ISDIR(old.mode):
            pairs.append(("links", self._old.first[path], self._new.first[path]))
        what = [name for name, before, after in pairs if before != after]
        contents = ""
        if stat.S_ISREG(old.mode) and old.size and old.size == new.size:
            contents = self._compare_bytes(old, new)
            if contents == "changed":
                what.append("bytes")
        if what:
            return Change("changed", path, tuple(what))
        return Change("undecided", path, ("bytes",)) if contents else None

    def _compare_bytes(self, old: Inode, new: Inode) -> str:
        """Return ``changed``, ``undecided``, or nothing for files of one size."""
        pair = old.nid, new.nid
        if pair not in self._known:
            self._known[pair] = self._compare_once(old, new)
        return self._known[pair]

    def _compare_once(self, old: Inode, new: Inode) -> str:
        before = list(_iter_runs(self._old.index, old))
        after = list(_iter_runs(self._new.index, new))
        if before == after:
            return ""
        if self._readers is None:
            return "undecided"
        for at in range(0, old.size, STEP):
            size = min(STEP, old.size - at)
            left, right = (
                b"".join(reader.read(inode.data_offset + at, size))
                for reader, inode in zip(self._readers, (old, new), strict=True)
            )
            if left != right:
                return "changed"
        return ""


def _iter_runs(index: ChunkIndex, inode: Inode) -> Iterator[tuple[bytes, int, int]]:
    """Yield what a file is made of: a chunk's digest, where in it, and how many bytes.

    Holes have no digest, and neighbouring ones are one.
    """
    start = inode.data_offset - index.data_start
    end = start + inode.size
    place = bisect_right(index.starts, start) - 1
    hole = 0
    at = start
    while at < end:
        until = min(end, index.starts[place + 1])
        chunk = index.place_chunks[place]
        if chunk == HOLE:
            hole += until - at
        else:
            if hole:
                yield b"", 0, hole
                hole = 0
            yield index.digest(chunk), at - index.starts[place], until - at
        at = until
        place += 1
    if hole:
        yield b"", 0, hole
