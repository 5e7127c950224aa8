"""Have the kernel read what lies beside a read before the workload asks for it.

The rest of the bootstrap frame, the rest of the chunk, the chunks that follow: in
larger pieces than the kernel would ask for, and beside the workload, by advice (see
boot/replay.py).  Only what is in memory or in the cache is advised, so that nothing
is fetched for it (but for what is dropped before the kernel comes to read it).  When
the start is over, what lies around its reads is fetched in the background.
"""

from __future__ import annotations

from _queue import Empty, SimpleQueue
from bisect import bisect_right

from store.errors import BootfsError
from store.format.chunkindex import BLOCK, FRAME, HOLE

AHEAD = 512 << 10
"""Plain bytes advised past the end of a read."""
MARGIN = 256 << 10
"""Plain bytes: a window of EROFS's read-ahead on either side, and the next one."""
QUIET_S = 0.5
"""A start is over when nothing was read for so long."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.read.image import ImageReader
    from store.read.order import Pages, StartOrder


class ReadAhead:
    """Decides what is worth reading early, and advises each page of an image at most once."""

    def __init__(
        self,
        image: ImageReader,
        order: StartOrder | None,
        advise: Callable[[int, int], int],
        step: int,
        advised: Pages,
    ) -> None:
        """Read ahead in ``image``, note reads in ``order``; ``advise`` as for `Replay`.

        Pages in ``advised`` are read on advice: what is read of them is no news.
        """
        self._image = image
        self._order = order
        self._advise = advise
        self._step = step
        self._advised = advised
        self._queue: SimpleQueue[tuple[int, int]] = SimpleQueue()
        self._held: list[tuple[int, int]] | None = None
        self._unsettled: list[int] = []
        """Places that were read since the last `_settle`."""

    def saw(self, offset: int, size: int) -> None:
        """Take note of a read that has been answered; cheap, and never blocks."""
        if not self._advised.holds(offset, size):
            held = self._held
            if held is None:
                self._queue.put((offset, size))
            else:
                held.append((offset, size))

    def hold(self) -> None:
        """Leave what is seen from now on for later: there are better things to do."""
        self._held = []

    def resume(self) -> None:
        """Go on with what was left."""
        held, self._held = self._held, None
        for seen in held or ():
            self._queue.put(seen)

    def run(self) -> None:
        """Advise for ever: a thread, to be started when the image is mounted."""
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

    def _follow(self, offset: int, size: int) -> None:
        """Note a read for the next start, and advise what lies near it."""
        index = self._image.index
        try:
            if offset < index.bootstrap_size:
                start = offset // FRAME * FRAME
                length = min(FRAME, index.bootstrap_size - start)
                self._note(start, length)
                self._advise_new(start, length)
            elif offset >= index.data_start:
                self._note(offset, size)
                start = offset - index.data_start
                first = bisect_right(index.starts, start) - 1
                end = bisect_right(index.starts, start + size - 1)
                self._unsettled += range(first, end)
                self._advise_near(first, size + AHEAD)
        except (BootfsError, OSError):
            # Whoever needs the bytes reads them, and is told.
            return

    def _note(self, offset: int, size: int) -> None:
        if self._order is not None:
            try:
                self._order.add(offset, size)
            except OSError:
                # No room to note it: the next start is as fast as this one.
                self._order = None

    def _advise_near(self, first: int, limit: int) -> None:
        """Advise from place ``first`` on, as far as all is near, ``limit`` bytes at most."""
        starts = self._image.index.starts
        count = len(self._image.index.place_chunks)
        last = first
        while last < count and starts[last] < starts[first] + limit and self._is_near(last):
            last += 1
        if last == first:
            return
        # A page that two chunks share is read when both are near.
        begin = -(-starts[first] // BLOCK) * BLOCK
        if first and self._is_near(first - 1):
            begin = starts[first] // BLOCK * BLOCK
        end = starts[last] // BLOCK * BLOCK
        if last < count and self._is_near(last):
            end = -(-starts[last] // BLOCK) * BLOCK
        self._advise_new(self._image.index.data_start + begin, end - begin)

    def _advise_new(self, offset: int, size: int) -> None:
        """Advise the first run of pages that were not advised before."""
        offset, size = self._advised.first_gap(offset, size)
        self._advised.add(offset, size)
        for at in range(offset, offset + size, self._step):
            self._advise(at, min(self._step, offset + size - at))

    def _is_near(self, place: int) -> bool:
        chunk = self._image.index.place_chunks[place]
        return chunk != HOLE and self._image.chunks.has_here(chunk)
