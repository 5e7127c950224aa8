"""Have the kernel read what is at hand before the workload asks for it.

A read that reaches Python costs its reader some 0.15 ms, whatever its size, and a
program that starts makes thousands of 4 to 64 KiB.  The kernel is advised to read
two things into its page cache, in larger pieces and beside the workload:

- at the start, what earlier starts on this machine read (store/read/order.py);
- later, what lies beside a read: the rest of the bootstrap frame, the rest of the
  chunk, the chunks that follow.

Only what is in memory or in the cache is advised, so that nothing is fetched for it
(but for what is dropped before the kernel comes to read it).  When the start is over,
what lies around its reads is fetched in the background.
The advice is posix_fadvise(2) on image.erofs, which waits for no page.  (Storing
pages by FUSE_NOTIFY_STORE waits for those that are being read, and a daemon that
is killed meanwhile can neither end nor be replaced.)
"""

from __future__ import annotations

from _queue import Empty, SimpleQueue
from bisect import bisect_right

from store.errors import BootfsError
from store.format.chunkindex import BLOCK, FRAME, HOLE
from store.read.order import FRAME_BIT

AHEAD = 512 << 10
"""Plain bytes advised past the end of a read."""
MARGIN = 256 << 10
"""Plain bytes: a window of EROFS's read-ahead on either side, and the next one."""
QUIET_S = 0.5
"""A start is over when nothing was read for so long."""
RUN = 16
"""Parts of one step, about 1 MiB, so that what was just read has its turn in between."""
REPLAY_LIMIT = 128 << 20
"""Plain bytes advised at the start: 0.2 s of one core, beside the workload's own."""
STEP = 128 << 10
"""The kernel reads no more for one piece of advice: VM_READAHEAD_PAGES."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.read.image import ImageReader
    from store.read.order import StartOrder


class ReadAhead:
    """Decides what is worth reading early, and advises each part of an image at most once."""

    def __init__(
        self,
        image: ImageReader,
        order: StartOrder | None,
        advise: Callable[[int, int], None],
    ) -> None:
        """``advise`` takes offset and size of a piece of image.erofs, `STEP` at most."""
        self._image = image
        self._order = order
        self._advise = advise
        index = image.index
        self._frames = bytearray(len(index.frame_digests))
        self._places = bytearray(len(index.place_chunks))
        self._queue: SimpleQueue[tuple[int, int]] = SimpleQueue()
        self._unsettled: list[int] = []
        """Places that were read since the last `_settle`."""

    def saw(self, offset: int, size: int) -> None:
        """Take note of a read that has been answered; cheap, and never blocks."""
        index = self._image.index
        if offset < index.bootstrap_size:
            if not self._frames[offset // FRAME]:
                self._queue.put((offset, size))
        elif offset >= index.data_start:
            place = bisect_right(index.starts, offset - index.data_start) - 1
            if not self._places[place]:
                self._queue.put((offset, size))

    def run(self) -> None:
        """Advise for ever: a thread, to be started when the image is mounted."""
        if self._order is not None:
            self._replay(self._order.parts)
        while True:
            try:
                # Without a limit when there is nothing to do after it.
                seen = self._queue.get(timeout=QUIET_S if self._unsettled else None)
            except Empty:
                self._settle()
            else:
                self._follow(*seen)

    def _settle(self) -> None:
        """Have what lies around this start's reads fetched, in the background.

        Where the kernel reads on by itself depends on what it has in memory; the next
        start has other things there, and is to fetch nothing.  Not where nothing was
        fetched: then the store is not needed, and may be away.
        """
        index = self._image.index
        chunks: set[int] = set()
        for place in self._unsettled:
            first = bisect_right(index.starts, max(index.starts[place] - MARGIN, 0)) - 1
            last = bisect_right(index.starts, index.starts[place + 1] + MARGIN - 1)
            chunks.update(index.place_chunks[first:last])
        self._unsettled.clear()
        if self._image.chunks.counters.requests:
            self._image.chunks.want(sorted(chunks - {HOLE}))

    def _replay(self, parts: list[int]) -> None:
        """Advise ``parts``, neighbours together; between them, what lies near new reads."""
        left = REPLAY_LIMIT
        at = 0
        while at < len(parts) and left > 0:
            end = at + 1
            while end < min(len(parts), at + RUN) and parts[end] == parts[end - 1] + 1:
                end += 1
            left -= self._advise_parts(parts[at], parts[end - 1])
            at = end
            while True:
                try:
                    self._follow(*self._queue.get_nowait())
                except Empty:
                    break

    def _advise_parts(self, first: int, last: int) -> int:
        """Advise parts ``first`` to ``last`` of a start order; return the bytes advised."""
        try:
            if first & FRAME_BIT:
                return sum(self._advise_frame(part & ~FRAME_BIT) for part in range(first, last + 1))
            return self._advise_places(first, last + 1, REPLAY_LIMIT)
        except (BootfsError, OSError):
            # Whoever needs the bytes reads them, and is told.
            return 0

    def _follow(self, offset: int, size: int) -> None:
        """Advise what lies near a read, and note the read for the next start."""
        index = self._image.index
        try:
            if offset < index.bootstrap_size:
                self._note(offset // FRAME | FRAME_BIT)
                self._advise_frame(offset // FRAME)
                return
            start = offset - index.data_start
            first = bisect_right(index.starts, start) - 1
            end = bisect_right(index.starts, start + size - 1)
            for place in range(first, min(end, len(self._places))):
                self._note(place)
                self._unsettled.append(place)
            self._advise_places(first, len(self._places), size + AHEAD)
        except (BootfsError, OSError):
            return

    def _note(self, part: int) -> None:
        if self._order is not None:
            try:
                self._order.add(part)
            except OSError:
                # No room to note it: the next start is as fast as this one.
                self._order = None

    def _advise_frame(self, number: int) -> int:
        """Advise a bootstrap frame; return its size, 0 when it was advised before."""
        if number >= len(self._frames) or self._frames[number]:
            return 0
        self._frames[number] = 1
        start = number * FRAME
        return self._advise_range(start, min(start + FRAME, self._image.index.bootstrap_size))

    def _advise_places(self, first: int, end: int, limit: int) -> int:
        """Advise places from ``first`` on, while near and new; return the bytes advised."""
        index = self._image.index
        starts = index.starts
        end = min(end, len(self._places))
        while first < end and self._places[first]:
            first += 1
        last = first
        while (
            last < end
            and starts[last] < starts[first] + limit
            and not self._places[last]
            and self._is_near(last)
        ):
            self._places[last] = 1
            last += 1
        if last == first:
            return 0
        # A page that two chunks share is read when both are near.
        begin = -(-starts[first] // BLOCK) * BLOCK
        if first and self._is_near(first - 1):
            begin = starts[first] // BLOCK * BLOCK
        end_at = starts[last] // BLOCK * BLOCK
        if last < len(self._places) and self._is_near(last):
            end_at = -(-starts[last] // BLOCK) * BLOCK
        return self._advise_range(index.data_start + begin, index.data_start + end_at)

    def _advise_range(self, start: int, end: int) -> int:
        """Advise from ``start`` to ``end``; return how much that is."""
        for at in range(start, end, STEP):
            self._advise(at, min(STEP, end - at))
        return max(end - start, 0)

    def _is_near(self, place: int) -> bool:
        chunk = self._image.index.place_chunks[place]
        return chunk != HOLE and self._image.chunks.has_here(chunk)
