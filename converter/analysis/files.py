"""The tree of an image as its start sees it, and a record of what was read of it.

Who looks for a file here reads what the kernel would: the entries and inodes on the way,
links followed in the image's own root.  All of it is noted, in order, in pages of
``image.erofs``.  Images are hostile: work is bounded, and its end is `Enough`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

from store.format.chunkindex import BLOCK
from store.format.erofs import Image, Inode
from store.format.erofslayout import INODE, SLOT

LINK_LIMIT = 40
STEP_LIMIT = 120_000
"""Steps: names looked up, links followed, imports.  A program with pandas takes 27,000."""
LOOK_LIMIT = 48 << 20
"""Bytes of contents that are looked into."""
TOUCH_LIMIT = 96 << 20
"""Bytes that a start can be said to read: no hot pack should hold more on suspicion."""
DIRECTORY_LIMIT = 1 << 20
"""A larger directory is not listed."""


class Enough(Exception):
    """A bound was reached; what was found by then is the answer."""


class File:
    """A regular file of the tree: its ``path`` without links, its ``inode``."""

    __slots__ = ("inode", "path")

    def __init__(self, path: bytes, inode: Inode) -> None:
        self.path = path
        self.inode = inode

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.inode.size

    @property
    def is_program(self) -> bool:
        """Whether somebody may execute it."""
        return bool(self.inode.mode & 0o111)

    @property
    def directory(self) -> bytes:
        """Path of the directory that holds it."""
        return self.path.rpartition(b"/")[0] or b"/"

    @property
    def name(self) -> bytes:
        """Last part of its path."""
        return self.path.rpartition(b"/")[2]


class Files:
    """The files of one image; ``reads`` is what was read of ``image.erofs`` so far.

    ``contents`` returns bytes by their offset in ``image.erofs`` and their number.
    """

    def __init__(self, image: Image, contents: Callable[[int, int], bytes]) -> None:
        self.reads: list[tuple[int, int]] = []
        """First page and number of pages, each page once."""
        self.touched = 0
        """Bytes of the data region among ``reads``."""
        self._image = image
        self._contents = contents
        self._pages: set[int] = set()
        self._found: dict[bytes, tuple[bytes, Inode] | None] = {}
        self._names: dict[int, frozenset[bytes]] = {}
        self._inodes: dict[int, Inode] = {}
        self._steps = STEP_LIMIT
        self._left = LOOK_LIMIT

    def find(self, path: bytes) -> File | None:
        """Return the regular file at an absolute ``path``, links followed; None where none is."""
        found = self._walk(path)
        return File(*found) if found is not None and stat.S_ISREG(found[1].mode) else None

    def find_directory(self, path: bytes) -> bytes | None:
        """Return the path without links of the directory at ``path``; None where none is."""
        found = self._walk(path)
        return found[0] if found is not None and stat.S_ISDIR(found[1].mode) else None

    def names(self, path: bytes) -> frozenset[bytes]:
        """Return the names in the directory at ``path``, read whole; none where none is."""
        found = self._walk(path)
        inode = None if found is None else found[1]
        if inode is None or not stat.S_ISDIR(inode.mode) or inode.size > DIRECTORY_LIMIT:
            return frozenset()
        names = self._names.get(inode.nid)
        if names is None:
            if inode.size >= BLOCK or not inode.tail_at:
                self._note(inode.blocks_at, inode.size)
            names = frozenset(name for name, _, _ in self._image.iter_dir(inode))
            self._names[inode.nid] = names
            self.spend(1 + len(names) // 16)
        return names

    def read(self, file: File, offset: int, size: int) -> bytes:
        """Return bytes of a file, fewer at its end, without noting them.

        Raises:
            Enough: more than a start should take was looked into.

        """
        size = max(min(size, file.size - offset), 0)
        if not size or offset < 0:
            return b""
        self._left -= size
        if self._left < 0:
            raise Enough
        return self._contents(file.inode.data_offset + offset, size)

    def touch(self, file: File, offset: int = 0, size: int | None = None) -> None:
        """Note that the start reads bytes of a file, from ``offset``, or all of it.

        Raises:
            Enough: a start reads less.

        """
        size = file.size if size is None else size
        end = min(offset + size, file.size)
        offset = max(offset, 0)
        if offset < end:
            self.touched += self._note(file.inode.data_offset + offset, end - offset)
            if self.touched > TOUCH_LIMIT:
                raise Enough

    def spend(self, steps: int) -> None:
        """Count steps of whoever looks into this tree.

        Raises:
            Enough: they were too many.

        """
        self._steps -= steps
        if self._steps < 0:
            raise Enough

    def _walk(self, path: bytes) -> tuple[bytes, Inode] | None:
        """Return path and inode of what is at ``path``, both links followed, or None."""
        self.spend(1)
        if path in self._found:
            return self._found[path]
        self._found[path] = found = self._follow(path)
        return found

    def _follow(self, path: bytes) -> tuple[bytes, Inode] | None:
        root = self._inode(self._image.root_nid)
        stack = [(b"", root)]
        todo = [part for part in reversed(path.split(b"/")) if part]
        links = 0
        while todo:
            part = todo.pop()
            if part == b".":
                continue
            if part == b"..":
                del stack[max(1, len(stack) - 1) :]
                continue
            above = stack[-1][1]
            nid = self._lookup(above, part) if stat.S_ISDIR(above.mode) else None
            if nid is None:
                return None
            inode = self._inode(nid)
            if not stat.S_ISLNK(inode.mode):
                stack.append((part, inode))
                continue
            links += 1
            if links > LINK_LIMIT:
                return None
            self.spend(1)
            target = self._image.readlink(inode)
            if target.startswith(b"/"):
                del stack[1:]
            todo.extend(part for part in reversed(target.split(b"/")) if part)
        return b"/".join(name for name, _ in stack) or b"/", stack[-1][1]

    def _lookup(self, directory: Inode, name: bytes) -> int | None:
        self.spend(1)
        if not directory.tail_at or directory.size > BLOCK:
            # By halves, as the kernel does: the middle first.
            middle = (-(-directory.size // BLOCK)) // 2
            self._note(directory.blocks_at + middle * BLOCK, 1)
        return self._image.lookup(directory, name)

    def _inode(self, nid: int) -> Inode:
        inode = self._inodes.get(nid)
        if inode is None:
            inode = self._inodes[nid] = self._image.inode(nid)
            self._note(nid * SLOT, INODE.size + inode.xattrs_size)
        return inode

    def _note(self, at: int, size: int) -> int:
        """Note bytes of ``image.erofs``; return how many, in whole pages, were new."""
        pages = self._pages
        count = 0
        for page in range(at // BLOCK, -(-(at + size) // BLOCK)):
            if page in pages:
                continue
            pages.add(page)
            count += 1
            last = self.reads[-1] if self.reads else (-1, 0)
            if last[0] + last[1] == page:
                self.reads[-1] = (last[0], last[1] + 1)
            else:
                self.reads.append((page, 1))
        return count * BLOCK
