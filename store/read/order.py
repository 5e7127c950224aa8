"""What starts of an image read, kept in its cache for the next start on this machine.

A list of reads of ``image.erofs`` in the order in which they were first made, what a profile
names ahead of what it lacks, eight bytes each, little-endian: number of the first page, number
of pages.  It only says what to read early, so nothing here is trusted and a list that is
wrong costs time.  Every container adds what it finds missing, up to a limit.
"""

from __future__ import annotations

import os
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from struct import Struct

from store.format.chunkindex import BLOCK

ENTRY = Struct("<II")
LIMIT = 16384
"""Reads at most: some 1 GB of data, more than starts read."""
MAP_NORESERVE = 0x4000
"""asm-generic/mman-common.h; not in Python 3.11's mmap."""
FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Not through a link: others write into the cache, and this would add to a file of theirs."""


class Pages:
    """A set of pages of one file; one byte a page, and memory only where some are in it."""

    __slots__ = ("_count", "_marks")

    def __init__(self, size: int) -> None:
        """Begin with none of the pages of a file of ``size`` bytes."""
        self._count = max(-(-size // BLOCK), 1)
        self._marks = mmap(-1, self._count, flags=MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

    def add(self, offset: int, size: int) -> None:
        """Put in every page that holds one of ``size`` bytes from ``offset``."""
        first = min(offset // BLOCK, self._count)
        end = min(-(-(offset + size) // BLOCK), self._count)
        if first < end:
            self._marks[first:end] = b"\1" * (end - first)

    def holds(self, offset: int, size: int) -> bool:
        """Whether every page of ``size`` bytes from ``offset`` is in."""
        return self._marks.find(b"\0", offset // BLOCK, -(-(offset + size) // BLOCK)) < 0

    def first_gap(self, offset: int, size: int) -> tuple[int, int]:
        """Return offset and size of the first run of whole pages that are not in; size 0: none."""
        end = -(-(offset + size) // BLOCK)
        first = self._marks.find(b"\0", offset // BLOCK, end)
        if first < 0:
            return offset, 0
        last = self._marks.find(b"\1", first, end)
        return first * BLOCK, ((end if last < 0 else last) - first) * BLOCK


class StartOrder:
    """The list of one image; for one thread at a time, and many processes at once."""

    def __init__(self, path: str, size: int) -> None:
        """Open, and make where missing, the list in directory ``path`` of a cache.

        ``size`` is that of ``image.erofs``.

        Raises:
            OSError: it cannot be opened.

        """
        self._fd = os.open(f"{path}/reads", FLAGS, 0o600)
        data = os.pread(self._fd, LIMIT * ENTRY.size, 0)
        self._count = len(data) // ENTRY.size
        self._data = data[: self._count * ENTRY.size]
        self._size = size
        self._reads: list[tuple[int, int]] | None = None
        self._known: Pages | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found."""
        return not self._data

    @property
    def reads(self) -> list[tuple[int, int]]:
        """Offset and size of each, in bytes, as found; parsed when first asked for.

        Which is when the image is mounted: until then every millisecond is the boot's.
        """
        if self._reads is None:
            self._reads = [
                (first * BLOCK, pages * BLOCK)
                for first, pages in ENTRY.iter_unpack(self._data)
                if (first + pages) * BLOCK < self._size + BLOCK
            ]
        return self._reads

    def add(self, *reads: tuple[int, int]) -> None:
        """Add reads, offset and size, of which a page is new, as far as there is room.

        Raises:
            OSError: the disk is full; the list stays as it was.

        """
        known = self._known
        if known is None:
            known = self._known = Pages(self._size)
            for place in self.reads:
                known.add(*place)
        added = bytearray()
        for offset, size in reads:
            if self._count >= LIMIT or known.holds(offset, size):
                continue
            known.add(offset, size)
            self._count += 1
            first = offset // BLOCK
            added += ENTRY.pack(first, -(-(offset + size) // BLOCK) - first)
        if added:
            # One write appends whole: readers never see half an entry of ours.
            os.write(self._fd, added)
