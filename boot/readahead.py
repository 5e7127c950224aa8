"""Have the kernel read what lies beside a read before the workload asks for it.

The rest of the bootstrap frame, the rest of the chunk, the chunks that follow: in
larger pieces than the kernel would ask for, and beside the workload, by advice (see
boot/replay.py).  Only what is in memory or in the cache is advised, so that nothing
is fetched for it (but for what is dropped before the kernel comes to read it).  When
a cold start is over, what lies around its reads is fetched, so that the next start
fetches nothing: in the background, or when the workload has ended before.
"""

from __future__ import annotations

import os
from _queue import Empty, SimpleQueue
from bisect import bisect_right

from store.errors import BootfsError
from store.format.chunkindex import BLOCK, FRAME, HOLE

AHEAD = 512 << 10
"""Plain bytes advised past the end of a read."""
BEHIND = 64 << 10
"""Plain bytes: so far before a page that a mapping lacks does the kernel begin to read."""
MARGIN = 256 << 10
"""Plain bytes after a page: a window of EROFS's read-ahead, and the next one."""
QUIET_S = 0.5
"""A start is over when nothing was read for so long."""
UNHEARD_S = 5.0
"""The same where the kernel has what its profile names, or what earlier starts read: one does not
hear of that."""
UNKNOWN = 8 << 20
"""Bytes of neither that are read before it is no longer the start that they tell of."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from store.read.hotpack import HotPack
    from store.read.image import ImageReader
    from store.read.order import Pages, StartOrder


class ReadAhead:
    """Decides what is worth reading early, and advises each page of an image at most once."""

    def __init__(
        self,
        image: ImageReader,
        order: StartOrder | None,
        advised: Pages,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """Read ahead in ``image``, note reads in ``order``.

        Pages in ``advised`` are read on advice: what is read of them is no news.
        ``started`` is called each time when a start may be over, or is none that is known.
        """
        self.advised = advised
        self.last: Callable[[], None] = lambda: None
        """What `end` has to be done before this process ends."""
        self.only_watches: Callable[[], bool] = lambda: False
        """Whether nothing is to be advised, since somebody wants to hear of all that is read."""
        self._started = started
        self._hot: HotPack | None = None
        self._quiet_s = QUIET_S
        self._image = image
        self._order = order
        self._advise: Callable[[int, int], int] = lambda *_: 0
        self._step = AHEAD
        self._queue: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        """What is seen; None wakes `run` up to `end`."""
        self._ends = False
        self._held: list[tuple[int, int]] | None = None
        self._unsettled: set[int] = set()
        """Places that were read and not yet seen to by `_settle`."""
        self._has_profile = False
        """What the profile names is noted."""
        self._unknown_left = 0
        """Bytes until this is taken for another start than the one told of; 0 where none is."""
        self._is_quiet = True
        """Nothing was read since `_settle` looked."""
        self._knows_before = False
        """What earlier starts read is among `_unsettled`, or was."""

    def saw(self, offset: int, size: int) -> None:
        """Take note of a read that has been answered; cheap, and never blocks."""
        if not self.advised.holds(offset, size):
            held = self._held
            if held is None:
                self._queue.put((offset, size))
            else:
                held.append((offset, size))

    def hold(self) -> None:
        """Leave what is seen from now on for later: there are better things to do."""
        self._held = []
        self._quiet_s = UNHEARD_S
        self._unknown_left = UNKNOWN

    def resume(self) -> None:
        """Go on with what was left; the start is over when nothing more is read for a while."""
        held, self._held = self._held, None
        self._is_quiet = False
        for seen in held or ():
            self._queue.put(seen)
        # `run` may wait without a limit.
        self._queue.put(None)

    def end(self) -> None:
        """Have `run` settle now and end this process; may be called by a signal handler."""
        self._ends = True
        self._queue.put(None)

    def advise_by(self, advise: Callable[[int, int], int], step: int) -> None:
        """Have `run` use ``advise`` and ``step``, which are as for `Replay`."""
        self._advise, self._step = advise, step

    def run(self) -> NoReturn:
        """Take what is seen until `end`: a thread, to be started when the image is mounted."""
        while not self._ends:
            try:
                # Without a limit when there is nothing to do after it.
                seen = self._queue.get(timeout=None if self._is_quiet else self._quiet_s)
            except Empty:
                self._settle()
            else:
                if seen is not None:
                    self._follow(*seen)
        try:
            self._finish()
        finally:
            os._exit(0)

    def _finish(self) -> None:
        """Note the reads that wait to be, and settle; return when all that takes has landed."""
        self.resume()
        while not self._queue.empty():
            seen = self._queue.get()
            if seen is not None:
                self._take(*seen)
        self._settle()
        self._image.chunks.wait_until_landed()
        self.last()

    def _settle(self) -> None:
        """Have what lies around this start's reads fetched, in the background.

        Where the kernel reads on by itself depends on what it has in memory; the next
        start has other things there, and is to fetch nothing.  Not where nothing was
        fetched: then the store is not needed, and may be away.
        """
        self._is_quiet = True
        self._started()
        self._take_profile()
        if not self._image.chunks.counters.fetched_chunks:
            return
        # An earlier start may have been cut off before it could do this.
        if self._order is not None and not self._knows_before:
            for offset, size in self._order.reads:
                self._unsettled.update(self._places(offset, size))
        self._knows_before = True
        index = self._image.index
        chunks: set[int] = set()
        for place in self._unsettled:
            first = bisect_right(index.starts, max(index.starts[place] - BEHIND, 0)) - 1
            last = bisect_right(index.starts, index.starts[place + 1] + MARGIN - 1)
            chunks.update(index.place_chunks[first:last])
        self._unsettled.clear()
        self._image.chunks.want(sorted(chunks - {HOLE}))

    def follow_profile(self, hot: HotPack) -> None:
        """Take what ``hot`` brings for what this start reads."""
        self._hot = hot
        self._quiet_s = UNHEARD_S
        self._unknown_left = UNKNOWN
        self._is_quiet = False

    def go_without(self) -> None:
        """Hear of all that is read, after all."""
        self._hot = None
        self._quiet_s = QUIET_S

    def _take_profile(self) -> None:
        self._note_profile()
        hot, self._hot = self._hot, None
        self._quiet_s = QUIET_S
        for offset, size in self._reads_of(hot):
            if offset >= self._image.index.data_start:
                self._unsettled.update(self._places(offset, size))

    def _note_profile(self) -> None:
        """Note what the profile names, once it is known: ahead of what it lacks."""
        hot = self._hot
        if hot is not None and hot.profile is not None and not self._has_profile:
            # Once, also where none of it is of this image: this is asked at every read.
            self._has_profile = True
            self._note(*self._reads_of(hot))

    def _reads_of(self, hot: HotPack | None) -> Iterator[tuple[int, int]]:
        profile = None if hot is None else hot.profile
        for first, pages in () if profile is None else profile.reads:
            offset, size = first * BLOCK, pages * BLOCK
            if offset + size <= self._image.size:
                yield offset, size

    def _places(self, offset: int, size: int) -> range:
        """Return the places that a read of ``image.erofs`` touches."""
        index = self._image.index
        start = offset - index.data_start
        if start < 0:
            return range(0)
        first = bisect_right(index.starts, start) - 1
        return range(
            first, min(bisect_right(index.starts, start + size - 1), len(index.starts) - 1)
        )

    def _take(self, offset: int, size: int) -> None:
        """Note a read, for the next start and for `_settle`."""
        index = self._image.index
        if offset < index.bootstrap_size:
            start = offset // FRAME * FRAME
            self._note((start, min(FRAME, index.bootstrap_size - start)))
        elif offset >= index.data_start:
            self._note_profile()
            self._note((offset, size))
            if self._unknown_left:
                self._unknown_left = max(self._unknown_left - size, 0)
                if not self._unknown_left:
                    self._started()
            self._unsettled.update(self._places(offset, size))
            self._is_quiet = False

    def _follow(self, offset: int, size: int) -> None:
        """Note a read, and advise what lies near it."""
        index = self._image.index
        self._take(offset, size)
        if self.only_watches():
            return
        try:
            if offset < index.bootstrap_size:
                start = offset // FRAME * FRAME
                self._advise_new(start, min(FRAME, index.bootstrap_size - start))
            elif offset >= index.data_start:
                self._advise_near(self._places(offset, size)[0], size + AHEAD)
        except (BootfsError, OSError):
            # Whoever needs the bytes reads them, and is told.
            return

    def _note(self, *reads: tuple[int, int]) -> None:
        if self._order is not None and reads:
            try:
                self._order.add(*reads)
            except OSError:
                # No room to note it: the next start is as fast as this one.
                self._order = None

    def _advise_near(self, first: int, limit: int) -> None:
        """Advise from place ``first`` on, as far as all is near, ``limit`` bytes at most."""
        if self._image.chunks.counters.fetched_chunks:
            # What is read on advice, one does not hear of when the workload wants it.  A cold
            # start hears of all: for the next one, and for `_settle`.
            return
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
        self._unsettled.update(range(first, last))
        self._advise_new(self._image.index.data_start + begin, end - begin)

    def _advise_new(self, offset: int, size: int) -> None:
        """Advise the first run of pages that were not advised before."""
        offset, size = self.advised.first_gap(offset, size)
        self.advised.add(offset, size)
        for at in range(offset, offset + size, self._step):
            self._advise(at, min(self._step, offset + size - at))

    def _is_near(self, place: int) -> bool:
        chunk = self._image.index.place_chunks[place]
        return chunk != HOLE and self._image.chunks.has_here(chunk)
