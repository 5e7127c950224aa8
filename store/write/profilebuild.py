"""Profiles made of traces: what starts of one command read, in order, and the chunks of that.

Page numbers are hostile: they are held against the chunk index, and what a profile costs
to make is bounded by what it may hold.  Nothing here does I/O.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from store.errors import IntegrityError, UsageError
from store.format.chunkindex import BLOCK, HOLE, ChunkIndex
from store.format.profile import CHUNK_LIMIT, NAME_LIMIT, ORIGINS, READ_LIMIT, Profile
from store.format.trace import Trace, encode_command, parse_command

PLAIN_LIMIT = 1 << 30
"""Plain bytes of the chunks of one hot pack; those that are read later are left to the packs."""
ANALYSIS = ORIGINS.index("analysis")
NO_PROFILE = "off"
"""What containers are given in place of a name to take no profile."""
_COUNT_LIMIT = 0xFFFFFFFF

Read = tuple[int, int]
"""First page of ``image.erofs``, and number of pages."""


def check_name(name: str) -> None:
    """Return when a profile can have this name.

    Raises:
        UsageError: it cannot.

    """
    if not 0 < len(name.encode(errors="replace")) <= NAME_LIMIT or not name.isprintable():
        raise UsageError(
            f"{name!r:.80} is no name for a profile: give {NAME_LIMIT} bytes at most of what can "
            "be printed"
        )
    if name == NO_PROFILE:
        raise UsageError(f"{name!r}: BOOTFS_PROFILE={name} means none; give another name")


def check_trace(trace: Trace, image: bytes, where: str) -> None:
    """Return when a trace is of the image whose chunk index has the raw digest ``image``.

    Raises:
        IntegrityError: it is of another.

    """
    if trace.image != image:
        raise IntegrityError(
            f"{where}: a trace of another image, blake3:{trace.image.hex()}, and not of "
            f"blake3:{image.hex()}; bootfs inspect shows the chunk index of each"
        )


def build_profile(
    index: ChunkIndex, name: str, command: list[bytes], traces: Sequence[Trace], origin: int
) -> Profile:
    """Return the profile of some traces of one image and command; it has no hot pack yet.

    ``origin`` is a number in `ORIGINS`.  Reads beyond the image, and more than a profile may
    have, are left out.

    Raises:
        UsageError: ``name`` is none.

    """
    check_name(name)
    series = ([(first, pages) for _, first, pages in trace.reads] for trace in traces)
    return _profile(index, name, command, series, origin, len(traces))


def merge_profiles(index: ChunkIndex, old: Profile, new: Profile) -> Profile:
    """Return what both say, under the name of ``old``: its reads, and where they belong the others.

    It has no hot pack yet.  Chunks are told from the reads again.
    """
    same = 0
    for ours, theirs in zip(old.command, new.command, strict=False):
        if ours != theirs:
            break
        same += 1
    # What both begin with is what later starts will begin with; nothing would fit none.
    command = old.command[:same] or old.command
    series = (old.reads, new.reads)
    # What was measured says more than what was reckoned.
    origin = old.origin if new.origin == ANALYSIS else new.origin
    return _profile(index, old.name, command, series, origin, old.traces + new.traces)


def _profile(
    index: ChunkIndex,
    name: str,
    command: list[bytes],
    series: Iterable[Sequence[Read]],
    origin: int,
    traces: int,
) -> Profile:
    # As it will be read again: commands are cut where they are long.
    profile = Profile(name, parse_command(encode_command(command)))
    profile.origin = origin
    profile.traces = min(traces, _COUNT_LIMIT)
    profile.reads = merge_reads(series, (index.data_start + index.data_size) // BLOCK)
    profile.chunks = chunks_of(index, profile.reads)
    return profile


def merge_reads(series: Iterable[Sequence[Read]], page_count: int) -> list[Read]:
    """Return every page of an image of ``page_count`` pages that some starts read, once.

    In the order of the first series; what another has beside it stands behind what it used
    before that.  `READ_LIMIT` reads at most.
    """
    merged = _Merged()
    for reads in series:
        merged.begin()
        for first, pages in reads:
            end = min(first + pages, page_count)
            if first < end:
                merged.add(first, end)
    return merged.reads()[:READ_LIMIT]


class _Merged:
    """Reads that do not overlap, in order, as a list of links so that any place is cheap."""

    def __init__(self) -> None:
        self._reads: list[Read] = [(0, 0)]
        """By number; the first is none, and stands before all."""
        self._next = [0]
        """By number: that of the read which follows; 0 for none."""
        self._firsts: list[int] = []
        self._numbers: list[int] = []
        """First page and number of each read, by page."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        """Pages that are there without a gap, by page: a read that meets many leaves one."""
        self._at = 0
        """Number of the read behind which a series goes on."""
        self._series = 0
        self._visitors = [0]
        """By number: the last series that used the read."""

    def begin(self) -> None:
        """Begin another series."""
        self._at = 0
        self._series += 1

    def add(self, first: int, end: int) -> None:
        """Add what is new of a read, behind the one before it."""
        starts, ends = self._starts, self._ends
        low = bisect_right(starts, first) - 1
        if low < 0 or ends[low] < first:
            low += 1
        high, at = low, first
        while high < len(starts) and starts[high] <= end:
            if at < starts[high]:
                self._insert(at, starts[high], first)
            at = max(at, ends[high])
            high += 1
        if at < end:
            self._insert(at, end, first)
        if high > low:
            starts[low:high], ends[low:high] = (
                [min(first, starts[low])],
                [max(end, ends[high - 1])],
            )
        else:
            starts.insert(low, first)
            ends.insert(low, end)
        self._visit(end - 1)

    def _insert(self, at: int, end: int, first: int) -> None:
        """Add pages of a read that began at page ``first``, which nobody has."""
        if at > first:
            self._visit(at - 1)
        number = len(self._reads)
        self._reads.append((at, end - at))
        self._next.append(self._next[self._at])
        self._next[self._at] = number
        self._visitors.append(self._series)
        self._at = number
        place = bisect_right(self._firsts, at)
        self._firsts.insert(place, at)
        self._numbers.insert(place, number)

    def _visit(self, page: int) -> None:
        """Go on behind the read that has a page, which there is, at its first use in a series."""
        number = self._numbers[bisect_right(self._firsts, page) - 1]
        if self._visitors[number] != self._series:
            self._visitors[number] = self._series
            self._at = number

    def reads(self) -> list[Read]:
        """Return all of them in order."""
        found: list[Read] = []
        number = self._next[0]
        while number:
            found.append(self._reads[number])
            number = self._next[number]
        return found


def chunks_of(index: ChunkIndex, reads: Iterable[Read]) -> array[int]:
    """Return the chunks that reads take, each once, in the order of its first use.

    As many as a hot pack may have: `CHUNK_LIMIT`, and `PLAIN_LIMIT` bytes.
    """
    starts, place_chunks = index.starts, index.place_chunks
    seen = bytearray(index.chunk_count)
    chunks = array("I")
    left = PLAIN_LIMIT
    for first, pages in reads:
        start = first * BLOCK - index.data_start
        end = min(start + pages * BLOCK, index.data_size)
        place = bisect_right(starts, max(start, 0)) - 1
        while place < len(place_chunks) and starts[place] < end:
            chunk = place_chunks[place]
            place += 1
            if chunk == HOLE or seen[chunk]:
                continue
            left -= index.plain_sizes[chunk]
            if left < 0 or len(chunks) == CHUNK_LIMIT:
                return chunks
            seen[chunk] = 1
            chunks.append(chunk)
    return chunks
