"""Have the kernel read what a hot pack has brought, before the workload asks for it.

A read that reaches Python costs its reader some 0.1 ms, whatever its size, and a start makes
hundreds.  So the kernel is advised (see boot/replay.py) to read the pages that the profile
names, in larger pieces, as soon as their chunks have landed.
"""

from __future__ import annotations

from store.format.chunkindex import BLOCK

BATCH = 256 << 10
"""Bytes of pages that have become available before the kernel is told."""
GAP = 64 << 10
"""Pages between two reads that are read too where their chunks are here."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.read.hotpack import HotPack
    from store.read.image import ImageReader
    from store.read.order import Pages


class HotAdvice:
    """Follows one hot pack; used by its thread alone."""

    def __init__(
        self,
        image: ImageReader,
        hot: HotPack,
        advise: Callable[[int, int], int],
        step: int,
        advised: Pages,
    ) -> None:
        """Advise by ``advise`` (offset, size), ``step`` bytes at most; add to ``advised``."""
        self._image = image
        self._hot = hot
        self._advise = advise
        self._step = step
        self._advised = advised
        self._waiting: list[tuple[int, int, int]] | None = None
        """Place in the hot pack of the last chunk, offset and size of each read; last first."""
        self._batch: list[tuple[int, int]] = []
        self._size = 0

    def landed(self, count: int) -> None:
        """Take note that the first ``count`` chunks are here."""
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = self._iter_reads()
        while waiting and waiting[-1][0] < count:
            _, offset, size = waiting.pop()
            self._batch.append((offset, size))
            self._size += size
        if self._size >= BATCH or (self._batch and not waiting):
            self._flush()

    def _iter_reads(self) -> list[tuple[int, int, int]]:
        profile = self._hot.profile
        if profile is None:
            return []
        places = {chunk: place for place, chunk in enumerate(profile.chunks)}
        last = len(profile.chunks)
        found = []
        image = self._image
        for number, (first, pages) in enumerate(profile.reads):
            offset, size = first * BLOCK, pages * BLOCK
            if offset >= image.size or size > image.size - offset + BLOCK:
                continue
            chunks = image.chunks_of(offset, size) if offset >= image.index.data_start else []
            place = max((places.get(chunk, last) for chunk in chunks), default=-1)
            found.append((place, number, offset, size))
        found.sort(reverse=True)
        return [(place, offset, size) for place, _, offset, size in found]

    def _flush(self) -> None:
        batch, self._batch, self._size = sorted(self._batch), [], 0
        start = end = 0
        for offset, size in batch:
            if start < end and offset - end <= GAP and self._is_here(end, offset):
                end = max(end, offset + size)
                continue
            self._tell(start, end)
            start, end = offset, offset + size
        self._tell(start, end)

    def _is_here(self, start: int, end: int) -> bool:
        """Whether nothing has to be fetched for what lies between two reads."""
        image = self._image
        if start >= end or end <= image.index.data_start:
            return True
        return all(map(image.chunks.has_here, image.chunks_of(start, end - start)))

    def _tell(self, start: int, end: int) -> None:
        for offset in range(start, end, self._step):
            size = min(self._step, end - offset)
            self._advised.add(offset, size)
            self._advise(offset, size)
