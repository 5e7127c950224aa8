"""What a container has written about itself, read as the bytes of a stranger.

In mode ``lease`` the workload itself can write that file, so nothing in it is believed to be
well-formed: it is parsed whole or refused, and texts in it are shown by `shown_name` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from store.errors import FormatError, UnsupportedVersion
from store.format.status import (
    BOUNDS_S,
    BUCKETS,
    COUNTS,
    FILE_LIMIT,
    HEADER,
    MAGIC,
    MODES,
    NUMBERS,
    READ,
    READ_LIMIT,
    REQUEST,
    REQUEST_LIMIT,
    STEPS,
    UNDER_WAY,
    VERSION,
)

NS = 10**9
_WHAT = "status file"
_LARGEST = 1 << 62
"""No number of it is larger: 146 years of nanoseconds, and sums of some of them fit 64 bits."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often something took how long."""

    counts: tuple[int, ...]
    """What took no longer than each of `BOUNDS_S`, but than the one before; then the rest."""
    sum_s: float

    @property
    def count(self) -> int:
        """Return how many there are."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the bound that so large a share stayed within; infinity for the last bucket."""
        left = share * self.count
        for bound, count in zip(BOUNDS_S, self.counts, strict=False):
            left -= count
            if left <= 0:
                return bound
        return float("inf")


@dataclass(frozen=True, slots=True)
class Request:
    """A range that was asked of the store; times are seconds since the start began."""

    begun_s: float
    took_s: float
    pack: int
    """Its place in the chunk index, if there is one of that number."""
    offset: int
    size: int
    chunks: int
    has_failed: bool


@dataclass(frozen=True, slots=True)
class Read:
    """A read by a process; times are seconds since the start began."""

    begun_s: float
    waited_s: float
    """0 if its bytes were at hand; so far, if it ``waits``."""
    waits: bool
    offset: int
    """In image.erofs, if that is so long."""
    size: int
    process: int
    """Its id in the container; 0 if not known."""
    name: bytes
    """Which the process gave itself; empty if not known."""


@dataclass(frozen=True, slots=True)
class StatusFile:
    """What is in a status file."""

    mode: str
    has_ended: bool
    written_ns: int
    """Since 1970."""
    age_s: float
    """How long the start had begun when it was written."""
    chunk_index: bytes
    numbers: dict[str, int]
    """By the names in `NUMBERS`."""
    steps: dict[str, float]
    """Seconds since the start began, of the steps made."""
    fetches: Histogram
    waits: Histogram
    requests: list[Request]
    reads: list[Read]


def parse_status(data: bytes) -> StatusFile:
    """Return what ``data`` says.

    Raises:
        UnsupportedVersion: another release wrote it.
        FormatError: nobody did.

    """
    if len(data) < HEADER.size + COUNTS.size or len(data) > FILE_LIMIT:
        raise FormatError(_WHAT, 0, f"{len(data)} bytes are no status")
    magic, version, mode, ended, written_ns, now_ns, chunk_index = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise FormatError(_WHAT, 0, "does not begin as one")
    if version != VERSION:
        raise UnsupportedVersion(_WHAT, 8, f"version {version}, and not {VERSION}")
    if not 0 < mode < len(MODES) or ended > 1:
        raise FormatError(_WHAT, 12, f"mode {mode}, ended {ended}")
    *values, steps, fetches, waits = COUNTS.unpack_from(data, HEADER.size)
    numbers = dict(zip(NUMBERS, values, strict=True))
    times = _numbers(steps, len(STEPS))
    buckets = [_numbers(part, BUCKETS) for part in (fetches, waits)]
    for value in (*values, *times, *buckets[0], *buckets[1], written_ns, now_ns):
        if value > _LARGEST:
            raise FormatError(_WHAT, HEADER.size, f"a number of {value}")
    requests, reads = numbers["listed_requests"], numbers["listed_reads"]
    size = HEADER.size + COUNTS.size + requests * REQUEST.size + reads * READ.size
    if requests > REQUEST_LIMIT or reads > READ_LIMIT or size != len(data):
        raise FormatError(_WHAT, HEADER.size, f"{requests} requests and {reads} reads")
    if ended:
        # Who waited then waits no more.
        numbers["waiting"] = 0
    begun_ns = times[0]
    at = HEADER.size + COUNTS.size
    middle = at + requests * REQUEST.size
    return StatusFile(
        mode=MODES[mode],
        has_ended=bool(ended),
        written_ns=written_ns,
        age_s=(now_ns - begun_ns) / NS,
        chunk_index=chunk_index,
        numbers=numbers,
        steps={
            name: (time_ns - begun_ns) / NS
            for name, time_ns in zip(STEPS, times, strict=True)
            if time_ns
        },
        fetches=Histogram(buckets[0], numbers["fetch_ns"] / NS),
        waits=Histogram(buckets[1], numbers["wait_ns"] / NS),
        requests=[_request(row, begun_ns) for row in REQUEST.iter_unpack(data[at:middle])],
        reads=[
            _read(row, begun_ns, now_ns, bool(ended)) for row in READ.iter_unpack(data[middle:])
        ],
    )


def _numbers(data: bytes, count: int) -> tuple[int, ...]:
    return Struct(f"<{count}Q").unpack(data)


def _request(row: tuple[int, ...], begun_ns: int) -> Request:
    begun, took, offset, size, pack, chunks, failed = row
    if max(begun, took, offset) > _LARGEST or failed > 1:
        raise FormatError(_WHAT, 0, "a request that cannot be")
    return Request((begun - begun_ns) / NS, took / NS, pack, offset, size, chunks, bool(failed))


def _read(
    row: tuple[int, int, int, int, int, bytes], begun_ns: int, now_ns: int, has_ended: bool
) -> Read:
    begun, waited, offset, size, process, name = row
    waits = waited == UNDER_WAY
    if waits:
        waited = max(now_ns - begun, 0)
    if max(begun, waited, offset) > _LARGEST:
        raise FormatError(_WHAT, 0, "a read that cannot be")
    begun_s = (begun - begun_ns) / NS
    return Read(
        begun_s,
        waited / NS,
        waits and not has_ended,
        offset,
        size,
        process,
        name.partition(b"\0")[0],
    )


def shown_name(name: bytes) -> str:
    """Return bytes of a stranger as text for a terminal or a page: printable, on one line.

    What is no text, or would steer a terminal, or turn the order of what follows, becomes an
    escape as in Python.
    """
    text = name.decode("utf-8", "backslashreplace")
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
