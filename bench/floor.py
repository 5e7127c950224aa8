"""The floor of a cold start: what it touches of an image, and the least time that this takes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from store.format.chunkindex import HOLE, ChunkIndex

ROUND_TRIPS = 2
"""One for what is pulled, one for what is fetched."""


@dataclass(frozen=True)
class Touched:
    """What one start needs at least of an image."""

    chunks: int
    stored_bytes: int
    """Of those chunks, as they lie in packs."""
    own_layer_bytes: int
    """Of the boot image's own layer, which is pulled before."""

    @property
    def bytes(self) -> int:
        """Return what has to cross a link."""
        return self.stored_bytes + self.own_layer_bytes


def floor_s(touched: Touched, warm_s: float, rate: float, rtt_s: float) -> float:
    """Return the least seconds from nothing to READY over a link of `rate` bit/s.

    All that has to cross it, with no gap on the line; then, not meanwhile, a warm run of `warm_s`.
    """
    return touched.bytes * 8 / rate + warm_s + ROUND_TRIPS * rtt_s


def touched_chunks(index: ChunkIndex, reads: Iterable[tuple[int, int]]) -> set[int]:
    """Return the chunks that hold a byte of `reads`: offset and size each, in image.erofs."""
    found: set[int] = set()
    for offset, size in reads:
        start = max(offset - index.data_start, 0)
        end = min(offset + size - index.data_start, index.data_size)
        if start >= end:
            continue
        first = bisect_right(index.starts, start) - 1
        last = bisect_right(index.starts, end - 1) - 1
        found.update(index.place_chunks[first : last + 1])
    return found - {HOLE}
