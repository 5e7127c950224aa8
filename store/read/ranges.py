"""Which bytes of which packs hold the chunks that are wanted."""

from __future__ import annotations

GAP_LIMIT = 64 << 10
"""Unwanted bytes between two chunks that are cheaper to fetch than a second request."""
RANGE_LIMIT = 1 << 20
"""Longest range of one request: 902 MB/s on loopback, and longer ones gain nothing."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from store.format.chunkindex import ChunkIndex


class Range:
    """Chunks to fetch in one request: bytes ``start`` to ``end`` of a pack."""

    __slots__ = ("chunks", "end", "heeds_claims", "pack", "start")

    def __init__(self, pack: int, start: int, end: int, chunks: list[int]) -> None:
        self.heeds_claims = True
        """Chunks that other containers fetch are waited for; else they were, long enough."""
        self.pack = pack
        self.start = start
        self.end = end
        self.chunks = chunks


def plan_ranges(index: ChunkIndex, chunks: list[int]) -> list[Range]:
    """Return the ranges that hold ``chunks``, merged over gaps, in order of their first chunk."""
    packs, offsets, stored = index.packs, index.offsets, index.stored_sizes
    ranges: list[Range] = []
    for chunk in sorted(chunks, key=lambda c: (packs[c], offsets[c])):
        start = offsets[chunk]
        end = start + stored[chunk]
        last = ranges[-1] if ranges else None
        if (
            last is not None
            and last.pack == packs[chunk]
            and start - last.end <= GAP_LIMIT
            and end - last.start <= RANGE_LIMIT
        ):
            last.end = max(last.end, end)
            last.chunks.append(chunk)
        else:
            ranges.append(Range(packs[chunk], start, end, [chunk]))
    return ranges
