"""What fetches have shown of the way to a store: its round trip, and how fast bytes come.

A server's first byte takes a round trip and what the server needs.  Bytes that come on
each other's heels were queued at the narrowest point of the way, so their pace is its
rate, however far a connection's window has grown (packet trains: Dovrolis et al.,
"Packet dispersion techniques and a capacity estimation methodology", 2004).
"""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic

TRAIN = 32 << 10
"""A shorter train says little: it may all have lain in a buffer."""
GAP_SHARE = 0.25
"""A pause of this share of a round trip ends a train."""
LEAST_GAP_S = 0.001
PACE = 40e6
"""Stored bytes/s that one processor decompresses, verifies and keeps beside a workload that wants
it too."""
FADING = 1 / 16
"""How much of what was measured before a worse figure replaces: ways change, and one bad answer
is none."""


class Link:
    """The way to a source.  May be used by many threads at once."""

    __slots__ = ("_lock", "rate", "round_trip_s")

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self.round_trip_s = 0.0
        """From a request to the first byte of its answer, lately; 0 where none has come."""
        self.rate = 0.0
        """Bytes/s that one request was seen to bring, lately; 0 where none has brought enough."""

    def answered(self, seconds: float) -> None:
        """Take note of how long a request's first byte took."""
        with self._lock:
            known = self.round_trip_s
            self.round_trip_s = (
                seconds if not known or seconds < known else known + (seconds - known) * FADING
            )

    def brought(self, size: int, seconds: float) -> None:
        """Take note of a train of ``size`` bytes, its first piece not counted."""
        pace = size / max(seconds, 1e-6)
        with self._lock:
            rate = self.rate
            self.rate = pace if pace > rate else rate + (pace - rate) * FADING

    @property
    def in_a_round_trip(self) -> int:
        """Bytes that come in the time that another request would take; 0 where it is not known.

        No more than can be dealt with in that time: where a store is near, most of the round
        trip is the time of processors, and the link alone would bring a multiple.
        """
        return int(min(self.rate, PACE) * self.round_trip_s)


class Arrivals:
    """The bytes of one request as they come; for one thread."""

    __slots__ = ("_asked_s", "_came", "_gap_s", "_last_s", "_link", "_train", "_train_s")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._asked_s = monotonic()
        self._last_s = 0.0
        self._gap_s = 0.0
        self._came = 0
        self._train = 0
        self._train_s = 0.0

    def saw(self, size: int) -> None:
        """Take note that so many bytes of the answer are here; fewer than before on another try."""
        now = monotonic()
        if not self._last_s:
            self._link.answered(now - self._asked_s)
            self._gap_s = max(self._link.round_trip_s * GAP_SHARE, LEAST_GAP_S)
        elif size >= self._came and now - self._last_s <= self._gap_s:
            self._train += size - self._came
            self._train_s += now - self._last_s
        else:
            self.end()
        self._last_s = now
        self._came = size

    def end(self) -> None:
        """Take note that no more comes for now."""
        if self._train >= TRAIN:
            self._link.brought(self._train, self._train_s)
        self._train = 0
        self._train_s = 0.0
