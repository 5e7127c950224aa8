"""Room in a cache that is kept to a number of bytes: the least recently used goes first.

By segments of data files, of all images on the volume.  Since every read is verified,
taking bytes from under a reader costs it a fetch and nothing else.  Imported only where
there is a limit, when the first chunk is kept.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate
from time import sleep

from store.read.cache import DIRECTORY, FLAGS, READING, SEGMENT, STAMP, list_directory

BLOCK = 4096
SHARE = 32
"""Of the limit: so much more than is needed is given up at once, and a segment at least."""
TRIES, PAUSE_S = 20, 0.001
"""For how long another container may be making room, before a chunk is not kept."""
PUNCH = 0x01 | 0x02
"""FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE (linux/falloc.h)."""
NUMBERS_LIMIT = 2 << 20
"""Bytes of a list of numbers, which whoever shares the cache may have written: 500,000 chunks.

What lies beyond is given up too, and its readers find a hole.
"""

# Locks of a file keep no thread of this process out.
_threads = allocate_lock()


class CacheLimit:
    """The bytes that all data files of a cache may have on the disk together."""

    def __init__(self, root: int, limit: int) -> None:
        """Keep what lies in the open directory ``root`` to ``limit`` bytes.

        ``root`` stays the caller's, and open.

        Raises:
            OSError: it cannot be opened.

        """
        self._root = root
        self._limit = limit
        self._fd = os.open("limit", FLAGS, 0o600, dir_fd=root)

    def close(self) -> None:
        """Close the lock's file; no call may be under way or follow."""
        os.close(self._fd)

    def take(self, size: int) -> bool:
        """Make room for ``size`` bytes, and keep others from taking it until `release`.

        Returns False, and keeps nobody from anything, when there is none to be had: the
        limit is too small, or another container, which may be paused, holds the lock.

        Raises:
            OSError: the data cannot be measured, or not given up.

        """
        # A file takes whole blocks, at either end.
        size += 2 * BLOCK
        if size > self._limit:
            return False
        _threads.acquire()
        has_room = False
        try:
            if self._take_lock():
                over = self._used() + size - self._limit
                if over > 0:
                    self._give_up(over + max(self._limit // SHARE, SEGMENT))
                    over = self._used() + size - self._limit
                has_room = over <= 0
        finally:
            if not has_room:
                self.release()
        return has_room

    def release(self) -> None:
        """Let others make room, and take it."""
        try:
            os.lockf(self._fd, os.F_ULOCK, 1)
        finally:
            _threads.release()

    def _take_lock(self) -> bool:
        for _ in range(TRIES):
            try:
                os.lockf(self._fd, os.F_TLOCK, 1)
            except (BlockingIOError, PermissionError):
                sleep(PAUSE_S)
            else:
                return True
        return False

    def _used(self) -> int:
        """Return the bytes that data files have on the disk, what is not yet written included."""
        used = 0
        for image in list_directory(self._root):
            try:
                # Where a link leads elsewhere, nothing is given up.
                data = os.stat(f"{image}/data", dir_fd=self._root, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            used += data.st_blocks * 512
        return used

    def _give_up(self, size: int) -> None:
        """Give up ``size`` bytes or somewhat more, as far as there are so many."""
        candidates: list[tuple[int, str, int]] = []
        for image in list_directory(self._root):
            candidates += _segments(self._root, image)
        candidates.sort()
        for _, image, segment in candidates:
            if size <= 0:
                return
            size -= _give_up_segment(self._root, image, segment)


def _segments(root: int, image: str) -> list[tuple[int, str, int]]:
    """Return stamp, image and number of each segment that holds data."""
    found: list[tuple[int, str, int]] = []
    try:
        directory = os.open(image, DIRECTORY, dir_fd=root)
        try:
            stamps = _read_numbers(directory, "used")
            data = os.open("data", READING, dir_fd=directory)
        finally:
            os.close(directory)
    except (FileNotFoundError, NotADirectoryError):
        # A link among them: it may lead to data that are no cache's.
        return []
    try:
        at = 0
        while True:
            try:
                start = os.lseek(data, at, os.SEEK_DATA)
            except OSError:
                # ENXIO: no more of it.
                return found
            segment = start // SEGMENT
            found.append((stamps[segment] if segment < len(stamps) else 0, image, segment))
            at = (segment + 1) * SEGMENT
    finally:
        os.close(data)


def _give_up_segment(root: int, image: str, segment: int) -> int:
    """Give up the chunks that lie in a segment, or reach into it; return the bytes won."""
    directory = os.open(image, DIRECTORY, dir_fd=root)
    try:
        offsets = array("Q", accumulate(_read_numbers(directory, "sizes"), initial=0))
        start, end = segment * SEGMENT, (segment + 1) * SEGMENT
        first = max(bisect_right(offsets, start) - 1, 0)
        last = min(bisect_left(offsets, end), len(offsets) - 1)
        # First, so that nobody takes the hole for a chunk.
        _write_at(directory, "present", bytes(max(last - first, 0)), first)
        if first < last:
            # Whole chunks, some of which reach beyond the segment; but no block that others share.
            start = -(-offsets[first] // BLOCK) * BLOCK
            end = max(end, offsets[last]) // BLOCK * BLOCK
        data = os.open("data", FLAGS, 0o600, dir_fd=directory)
        try:
            before = os.fstat(data).st_blocks
            _punch(data, start, end - start)
            won = (before - os.fstat(data).st_blocks) * 512
        finally:
            os.close(data)
        _write_at(directory, "used", bytes(STAMP), segment * STAMP)
        return won
    finally:
        os.close(directory)


def _write_at(directory: int, name: str, data: bytes, offset: int) -> None:
    fd = os.open(name, FLAGS, 0o600, dir_fd=directory)
    try:
        os.pwrite(fd, data, offset)
    finally:
        os.close(fd)


def _read_numbers(directory: int, name: str) -> array[int]:
    """Return the 32-bit numbers in a file; none where there is no such file."""
    numbers = array("I")
    try:
        fd = os.open(name, READING, dir_fd=directory)
    except FileNotFoundError:
        return numbers
    try:
        data = os.pread(fd, min(os.fstat(fd).st_size, NUMBERS_LIMIT), 0)
    finally:
        os.close(fd)
    numbers.frombytes(data[: len(data) // numbers.itemsize * numbers.itemsize])
    return numbers


def _punch(fd: int, start: int, size: int) -> None:
    """Make a hole in a file.

    Raises:
        OSError: the file system makes none.

    """
    # Here, since few containers make room, and ctypes costs 5 ms.
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, PUNCH, ctypes.c_long(start), ctypes.c_long(size)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
