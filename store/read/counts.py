"""What is counted of reads and fetches, in memory that PID 1 can see and write out.

Counting costs what adding an integer costs, and a time where a thread waits for the
network anyway.  Lists hold what came first: the start, which is what one looks for in them.
"""

from __future__ import annotations

from _ctypes import Array, Structure, _SimpleCData
from _thread import allocate_lock
from bisect import bisect_left
from time import monotonic

from store.format.status import (
    BOUNDS_S,
    BUCKETS,
    HAND_LIMIT,
    NUMBERS,
    READ,
    READ_LIMIT,
    READS_AT,
    REQUEST,
    REQUEST_LIMIT,
    REQUESTS_AT,
    STEPS,
    UNDER_WAY,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap

    Asked = tuple[int, int, int, bytes]
    """A read: offset in image.erofs, size, process id, the process's name."""


class _Number(_SimpleCData):  # type: ignore[type-arg]  # generic in stubs alone
    _type_ = "L"


class _Times(Array):  # type: ignore[type-arg]  # generic in stubs alone
    _type_ = _Number
    _length_ = len(STEPS)


class _Buckets(Array):  # type: ignore[type-arg]  # generic in stubs alone
    _type_ = _Number
    _length_ = BUCKETS


class Counters(Structure):
    """What was done so far, laid out as `store.format.status.COUNTS`."""

    _fields_ = (
        *((name, _Number) for name in NUMBERS),
        *(("steps", _Times), ("fetch_buckets", _Buckets), ("wait_buckets", _Buckets)),
    )
    if TYPE_CHECKING:
        chunks: int
        """Of the image."""
        data_bytes: int
        requests: int
        """Ranges that came whole."""
        fetched_bytes: int
        fetched_chunks: int
        errors: int
        """Ranges that did not, with all their retries."""
        fetch_ns: int
        """For so long ranges took, all together."""
        cache_hits: int
        """Chunks taken from this image's cache."""
        cache_bad: int
        followed: int
        """Chunks that another container was found to be fetching."""
        shared: int
        """Chunks taken from another image's data."""
        answered: int
        """Reads of the kernel that were answered; files that were filled."""
        waits: int
        """Reads that had to wait for a fetch; files that were opened before they were filled."""
        waiting: int
        """Those that wait now."""
        wait_ns: int
        to_fill: int
        """Bytes of files that were not filled when the workload began: mode ``lease``."""
        filled: int
        listed_requests: int
        listed_reads: int
        unlisted_reads: int
        """Reads that waited and found no room in the list."""
        daemons: int
        """Started so far, one after the other."""
        fetch_buckets: Array[_Number]
        wait_buckets: Array[_Number]


class Counts:
    """The counters of a process and its lists.  May be used by many threads at once."""

    def __init__(self, memory: mmap | None = None) -> None:
        """Go on counting in ``memory``, `MEMORY` bytes that are zeros at first.

        Without any, nothing is listed.
        """
        self._memory = memory
        self.counters = Counters() if memory is None else Counters.from_buffer(memory)
        self._lock = allocate_lock()
        # Who waited for a daemon that died asks this one again.
        self.counters.waiting = 0
        self._end_waits()
        self._at_hand = 0
        """Reads listed that did not wait."""
        self.whose: Callable[[], Asked | None] = lambda: None
        """Returns which read this thread answers, which has just begun to wait; None for none."""
        self.are_fetches_waits = True
        """Who waits for a fetch answers a read; else waits are told by `note_wait`."""

    def add_request(
        self, pack: int, start: int, size: int, chunks: int, begun_s: float, is_failed: bool = False
    ) -> None:
        """Count a request that has ended; ``begun_s`` is by `monotonic`."""
        took_s = monotonic() - begun_s
        counters = self.counters
        with self._lock:
            if is_failed:
                counters.errors += 1
            else:
                counters.requests += 1
                counters.fetched_bytes += size
            counters.fetch_ns += int(took_s * 1e9)
            counters.fetch_buckets[bisect_left(BOUNDS_S, took_s)] += 1
            at = counters.listed_requests
            if self._memory is not None and at < REQUEST_LIMIT:
                REQUEST.pack_into(
                    self._memory, REQUESTS_AT + at * REQUEST.size,
                    int(begun_s * 1e9), int(took_s * 1e9), start, size, pack, chunks, is_failed,
                )  # fmt: skip
                counters.listed_requests = at + 1

    def begin_wait(self) -> tuple[float, int] | None:
        """Count a read that waits from now on; return what `end_wait` wants, if anything."""
        if not self.are_fetches_waits:
            return None
        begun_s = monotonic()
        counters = self.counters
        with self._lock:
            counters.waits += 1
            counters.waiting += 1
        asked = self.whose()
        return begun_s, -1 if asked is None else self._list(begun_s, UNDER_WAY, asked)

    def end_wait(self, wait: tuple[float, int]) -> None:
        """Count what `begin_wait` returned as over."""
        begun_s, place = wait
        waited_s = monotonic() - begun_s
        with self._lock:
            self.counters.waiting -= 1
            self._add_wait(waited_s)
        if place >= 0 and self._memory is not None:
            READ.pack_into(
                self._memory, place,
                int(begun_s * 1e9), int(waited_s * 1e9) or 1,
                *READ.unpack_from(self._memory, place)[2:],
            )  # fmt: skip

    def _end_waits(self) -> None:
        """Count as over, from now on, what is listed as waiting for the daemon before."""
        now_s = monotonic()
        for at in range(min(self.counters.listed_reads, READ_LIMIT)):
            place = READS_AT + at * READ.size
            assert self._memory is not None
            begun_ns, waited_ns, *asked = READ.unpack_from(self._memory, place)
            if waited_ns == UNDER_WAY:
                waited_s = max(now_s - begun_ns / 1e9, 0.0)
                READ.pack_into(self._memory, place, begun_ns, int(waited_s * 1e9) or 1, *asked)
                self._add_wait(waited_s)

    def note_wait(self, begun_s: float, asked: Asked) -> None:
        """Count and list a wait that is over; the caller has counted it as ``waiting``."""
        waited_s = monotonic() - begun_s
        with self._lock:
            self._add_wait(waited_s)
        self._list(begun_s, int(waited_s * 1e9) or 1, asked)

    def _add_wait(self, waited_s: float) -> None:
        self.counters.wait_ns += int(waited_s * 1e9)
        self.counters.wait_buckets[bisect_left(BOUNDS_S, waited_s)] += 1

    def lists_at_hand(self) -> bool:
        """Whether `note_at_hand` would list one more."""
        return self._at_hand < HAND_LIMIT and self._memory is not None

    def note_at_hand(self, asked: Asked) -> None:
        """List a read that did not wait."""
        self._at_hand += 1
        self._list(monotonic(), 0, asked)

    def _list(self, begun_s: float, waited_ns: int, asked: Asked) -> int:
        """Return where a read is listed; -1 where there is no room for it."""
        if self._memory is None:
            return -1
        counters = self.counters
        with self._lock:
            at = counters.listed_reads
            if at >= READ_LIMIT:
                counters.unlisted_reads += 1
                return -1
            place = READS_AT + at * READ.size
            READ.pack_into(self._memory, place, int(begun_s * 1e9), waited_ns, *asked)
            # Last: what is listed is whole for who looks from another process.
            counters.listed_reads = at + 1
        return place
