"""Fetch the rest of an image in the background, while nobody waits for anything else.

Imported only where BOOTFS_COMPLETE is set.  A container whose image is whole in the cache
needs its store no more.
"""

from __future__ import annotations

from _thread import start_new_thread
from time import monotonic, sleep

WINDOW = 1 << 20
"""Stored bytes asked for at once: as long a range as any."""
QUIET_S = 2.0
"""So long must nobody have waited for a fetch before this goes on."""
LOOK_S = 0.25
REST_S = 30.0
"""After a failure; the store may be away."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from store.read.fetch import ChunkReader


class Completion:
    """Brings all chunks of an image that are not in its cache."""

    def __init__(self, reader: ChunkReader, rate: float, log: Callable[[str], None]) -> None:
        """Take ``rate`` bytes of the link in a second at most, 0 for all there is."""
        self._reader = reader
        self._rate = rate
        self._log = log

    def start(self) -> None:
        """Begin, in a thread of its own; where there is none to be had, nothing is completed."""
        try:
            start_new_thread(self.run, ())
        except RuntimeError:
            self._log(
                "BOOTFS_COMPLETE: no thread to fetch the rest of the image by: it is fetched when "
                "it is read, and the store stays needed; give the container a larger --pids-limit"
            )

    def run(self) -> None:
        """Bring everything, in the order of the packs; return when it is here."""
        for window in iter_windows(self._reader):
            while not self._bring(window):
                sleep(REST_S)

    def _bring(self, window: list[int]) -> bool:
        """Bring some chunks; return whether all of them are here."""
        reader = self._reader
        while reader.is_quiet_for_s() < QUIET_S:
            sleep(LOOK_S)
        begun_s = monotonic()
        stored = sum(reader.index.stored_sizes[c] for c in window if not reader.has_here(c))
        flights = reader.want(window)
        for flight in flights:
            with flight.landed:
                pass
        if self._rate:
            sleep(max(stored / self._rate - (monotonic() - begun_s), 0.0))
        return all(map(reader.has_here, window))


def iter_windows(reader: ChunkReader) -> Iterator[list[int]]:
    """Yield the chunks of an image that are not here, in the order of its packs.

    Some at a time that have `WINDOW` stored bytes, or are a single one.
    """
    index = reader.index
    places = sorted(range(index.chunk_count), key=lambda c: (index.packs[c], index.offsets[c]))
    window: list[int] = []
    size = 0
    for chunk in places:
        if reader.has_here(chunk):
            continue
        if window and size + index.stored_sizes[chunk] > WINDOW:
            yield window
            window, size = [], 0
        window.append(chunk)
        size += index.stored_sizes[chunk]
    if window:
        yield window
