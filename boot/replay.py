"""Have the kernel read, at the start, what earlier starts on this machine read.

A read that reaches Python costs its reader some 0.1 ms, whatever its size, and a
program that starts makes hundreds.  So the kernel is advised to read them into its
page cache ahead of the workload, in larger pieces, each when the daemon has nothing
else to answer.  Only what is in the cache is advised: nothing is fetched for it.

The advice is posix_fadvise(2) on image.erofs, which waits for no page.  (Storing
pages by FUSE_NOTIFY_STORE waits for those that are being read, and a daemon that
is killed meanwhile can neither end nor be replaced.)
"""

from __future__ import annotations

from bisect import bisect_right

from store.errors import BootfsError
from store.format.chunkindex import HOLE

NEIGHBOURHOOD = 128 << 10
"""Bytes, aligned: what is read in one of these is read when the first of it is.

A list grows at its end by what later starts miss, mostly beside what it has.
"""
WINDOW = 512 << 10
"""Bytes read one after the other that are put in order of place, so that neighbours meet; each
time twice as many, since the workload waits for what is wanted first."""
GAP = 64 << 10
"""Unwanted bytes that are read sooner than another piece is begun."""
SLICE = 256
"""Reads of the list that are looked at before the daemon answers again: some 0.2 ms."""
LIMIT = 128 << 20
"""Bytes at most: 0.1 s of one core, beside the workload's own."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from store.read.image import ImageReader
    from store.read.order import Pages, StartOrder


class Replay:
    """Advises the reads of a `StartOrder`, a piece at a time.  For one thread at a time."""

    def __init__(
        self,
        image: ImageReader,
        order: StartOrder,
        advise: Callable[[int, int], int],
        step: int,
        advised: Pages,
    ) -> None:
        """Replay ``order``; every piece of advice is added to ``advised``.

        ``advise`` takes offset and size of a piece of image.erofs, ``step`` bytes at
        most, and returns how much of it the kernel did not have.
        """
        self._image = image
        self._advise = advise
        self._advised = advised
        self._under_way = 0
        self._unfolding = image.index.iter_unfolding()
        self._near: dict[int, list[tuple[int, int]]] = {}
        """The reads of each neighbourhood, by its number, in order of the first of them."""
        self._gathering = self._gather(order)
        self._pieces = self._iter_pieces(step)

    def advise_next(self, is_idle: bool) -> bool:
        """Advise the next piece that the kernel does not have; return False when there is none.

        Not while another is under way, unless the daemon is idle.
        """
        if self._under_way > 0 and not is_idle:
            return True
        for _ in self._unfolding:
            # What is asked for meanwhile is of the bootstrap, and does not need it.
            return True
        for _ in self._gathering:
            return True
        for offset, size in self._pieces:
            self._advised.add(offset, size)
            try:
                self._under_way = self._advise(offset, size)
                if self._under_way:
                    return True
            except (BootfsError, OSError):
                # Whoever needs the bytes reads them, and is told.
                return False
        return False

    def answered(self, size: int) -> None:
        """Take note that the kernel has got ``size`` bytes that it asked for."""
        self._under_way -= size

    def _gather(self, order: StartOrder) -> Iterator[None]:
        """Put the first `LIMIT` bytes of the list into neighbourhoods, a slice at a time."""
        near = self._near
        left = LIMIT
        for number, (offset, size) in enumerate(order.reads, 1):
            # Others write into the list: one read of it may be the whole image.
            end = offset + min(size, left)
            left -= end - offset
            for place in range(offset // NEIGHBOURHOOD, -(-end // NEIGHBOURHOOD)):
                start = max(offset, place * NEIGHBOURHOOD)
                part = start, min(end, (place + 1) * NEIGHBOURHOOD) - start
                reads = near.get(place)
                if reads is None:
                    near[place] = [part]
                else:
                    reads.append(part)
            if left <= 0:
                return
            if not number % SLICE:
                yield

    def _iter_pieces(self, step: int) -> Iterator[tuple[int, int]]:
        limit = WINDOW
        window: list[tuple[int, int]] = []
        size = 0
        for reads in self._near.values():
            window += reads
            size += sum(length for _, length in reads)
            if size < limit:
                continue
            yield from self._in_place_order(window, step)
            window, size = [], 0
            limit *= 2
        yield from self._in_place_order(window, step)

    def _in_place_order(
        self, window: list[tuple[int, int]], step: int
    ) -> Iterator[tuple[int, int]]:
        window.sort()
        for start, end in self._merge(window):
            for offset in range(start, end, step):
                yield offset, min(step, end - offset)

    def _merge(self, window: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield start and end of what is at hand of sorted reads, small gaps filled."""
        start = end = 0
        for offset, size in window:
            if not self._is_here(offset, size):
                continue
            if (
                start < end
                and offset - end <= GAP
                and (offset <= end or self._is_here(end, offset - end))
            ):
                end = max(end, offset + size)
                continue
            if start < end:
                yield start, end
            start, end = offset, offset + size
        if start < end:
            yield start, end

    def _is_here(self, offset: int, size: int) -> bool:
        index = self._image.index
        if offset < index.data_start:
            return offset + size <= index.data_start
        start = offset - index.data_start
        first = bisect_right(index.starts, start) - 1
        has_here = self._image.chunks.has_here
        for place in range(first, bisect_right(index.starts, start + size - 1)):
            chunk = index.place_chunks[place]
            if chunk != HOLE and not has_here(chunk):
                return False
        return True
