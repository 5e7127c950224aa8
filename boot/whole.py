"""Lazy or whole: whether a cold start gets on sooner if all of the image is on its way.

Where the way to the store is long and wide and the image small, a start that waits for one
read after the other takes longer than all of the image would, in the order of its packs.
Imported only in a cold start whose reads nobody has recorded, or where BOOTFS_WHOLE says so
(docs/decisions/0026-link.md).
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

from boot.completion import WINDOW, iter_windows
from store.read.fetch import have_landed
from store.read.link import PACE

LEAST_WINDOWS = 2
"""Under way at once, so that the link does not rest while one is asked for."""
MOST_WINDOWS = 4
"""So that readers find fetchers, and a share of the link."""
TRIPS = 40
"""Round trips that a start waits for, one after the other: of nine images between 9 and 100, and
60 in the median."""
SHARE = 0.5
"""So much of the time that all of an image takes must a lazy start be expected to wait."""
OVER_S = 5.0
"""A start that has waited for nothing for so long is over."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.read.fetch import ChunkReader, Flight
    from store.read.hotpack import HotPack
    from store.read.link import Link


def is_whole_sooner(left: int, waited_s: float, link: Link) -> bool:
    """Predict whether a start gets on sooner with the ``left`` stored bytes on their way as well.

    It is expected to wait for `TRIPS` round trips, or as long as it has waited for such until
    now, ``waited_s``: so no more is waited in vain than a share of what the whole takes.
    """
    if not link.rate:
        return False
    lazy_s = max(waited_s, TRIPS * link.round_trip_s)
    return SHARE * (left / link.rate + left / PACE) <= lazy_s


class Whole:
    """Brings all of an image, beside who reads it, when that is predicted to be sooner."""

    def __init__(
        self, reader: ChunkReader, hot: HotPack | None, log: Callable[[str], None]
    ) -> None:
        """Decide nothing yet.  What ``hot`` brings, comes first."""
        self._reader = reader
        self._hot = hot
        self._log = log
        self._lock = allocate_lock()
        self._is_decided = self._has_begun = False
        self._waited_s = 0.0
        """For round trips: bytes, and the processor, take their time in either way."""
        self._ended_s = 0.0
        """When the last reader stopped waiting."""
        self._stored = sum(reader.index.stored_sizes)

    def decide(self) -> None:
        """Predict whenever a reader has waited, until the start is over."""
        self._reader.waited = self._saw

    def begin(self) -> None:
        """Bring everything, in a thread of its own, when a profile's chunks have come."""
        with self._lock:
            self._is_decided = True
        hot = self._hot
        if hot is None:
            self._start()
            return
        hot.ended = self._start
        if hot.is_over:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._has_begun:
                return
            self._has_begun = True
        try:
            start_new_thread(self.run, ())
        except RuntimeError:
            self._log("no thread to fetch the whole image with (--pids-limit): starting lazily")

    def run(self) -> None:
        """Bring everything, in the order of the packs; return when it has come, or failed."""
        try:
            self._bring()
        except Exception as error:
            # A fault of ours: the start needs none of it.
            self._log(f"fetching the whole image failed ({error!r}): going on lazily")

    def _bring(self) -> None:
        reader = self._reader
        under_way: list[list[Flight]] = []
        for window in iter_windows(reader):
            under_way.append(reader.want(window))
            wanted = 1 + reader.link.in_a_round_trip // WINDOW
            while len(under_way) >= min(max(wanted, LEAST_WINDOWS), MOST_WINDOWS):
                if not have_landed(under_way.pop(0)):
                    # Whoever wants a chunk asks again, and says why there is none.
                    self._log("fetching the whole image failed: going on lazily")
                    return

    def _saw(self, begun_s: float, ended_s: float) -> None:
        with self._lock:
            last_s = self._ended_s
            if last_s and begun_s > last_s + OVER_S:
                self._reader.waited = None
                return
            # Of several that wait at once, each moment counts once.
            alone_s = max(ended_s - max(begun_s, last_s), 0.0)
            self._waited_s += min(alone_s, self._reader.link.round_trip_s)
            self._ended_s = max(ended_s, last_s)
            if self._hot is not None and self._hot.is_streamed:
                self._reader.waited = None
                return
            left = self._stored - self._reader.counters.fetched_bytes
            if self._reader.room < WINDOW:
                # Memory is scarce.
                self._reader.waited = None
                return
            if self._is_decided or not is_whole_sooner(left, self._waited_s, self._reader.link):
                return
            # Another reader may be on its way to here.
            self._is_decided = True
            self._reader.waited = None
        self.begin()
