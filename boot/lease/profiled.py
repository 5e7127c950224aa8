"""Files that a profile names, filled before somebody opens them and before all others.

A file can only be let in to whole.  So what a hot pack lacks of such a file is fetched beside
it, ahead, in the order in which files are used; they are filled in the order in which the
hot pack has brought all that it has of them (docs/decisions/0022-profiles.md).
"""

from __future__ import annotations

from bisect import bisect_right

from boot.lease.aside import AsideFile
from store.format.chunkindex import BLOCK

LOOK_S = 0.5
"""So often one looks whether what is waited for still comes."""
SILENT_S = 5.0
"""What is waited for is given up when no chunk of anything has come for so long."""
DECISION_S = 10.0
"""So long at most does one wait to hear what the profile is; the rest is filled after that."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from boot.lease.filler import File
    from store.format.chunkindex import ChunkIndex
    from store.format.profile import Profile
    from store.read.hotpack import HotPack
    from store.read.image import ImageReader


class Profiled:
    """The files of one profile, which need not be known yet."""

    def __init__(
        self, image: ImageReader, hot: HotPack, aside: AsideFile | None, ahead: int
    ) -> None:
        """Fetch up to ``ahead`` plain bytes beside the hot pack before they are used."""
        self._image = image
        self._chunks = image.chunks
        self._hot = hot
        self._aside = aside
        self._ahead = ahead
        self._brought: set[int] = set()
        """Chunks of the hot pack."""
        self._left: list[tuple[File, list[int]]] = []
        """Files whose chunks are still to be asked for, with these; last first."""
        self._asked: list[tuple[File, int]] = []
        """Files that were asked for, and the plain bytes of that."""

    def close(self) -> None:
        """Let go of what is kept, since all is filled."""
        self._chunks.aside = None
        if self._aside is not None:
            self._aside.close()

    def iter_files(self, files: list[File]) -> Iterator[File]:
        """Yield those of ``files``, sorted by offset, that are named: each when it can be filled.

        Ends early where what it waits for does not come.
        """
        if not self._hot.decides_within(DECISION_S) or self._hot.profile is None:
            return
        profile = self._hot.profile
        image = self._image
        named = [
            (file, image.chunks_of(file.offset, file.size))
            for file in named_files(profile, image.index, files)
        ]
        self._left = named[::-1]
        if profile.hot_pack_size:
            places = {chunk: place for place, chunk in enumerate(profile.chunks)}
            self._brought = set(places)
            # In the order of use where it brings them together, or nothing of them.
            named.sort(key=lambda one: max((places.get(c, -1) for c in one[1]), default=-1))
        for file, chunks in named:
            self._ask_ahead()
            if file.begun:
                continue
            if not self._comes(file, chunks):
                return
            yield file

    def _ask_ahead(self) -> None:
        """Begin to fetch what the hot pack lacks of the files that are used next, many at once."""
        sizes = self._image.index.plain_sizes
        has_here = self._chunks.has_here
        self._asked = [(file, size) for file, size in self._asked if not file.begun]
        total = sum(size for _, size in self._asked)
        if 2 * total > self._ahead:
            return
        # What broke off brings no more.
        brought = () if self._hot.is_over else self._brought
        wanted: list[int] = []
        while self._left and total < self._ahead:
            file, chunks = self._left.pop()
            if file.begun:
                continue
            size = 0
            for chunk in chunks:
                # Who fills a longer file asks for the rest of it while it writes.
                if size >= self._ahead:
                    break
                if chunk not in brought and not has_here(chunk):
                    wanted.append(chunk)
                    size += sizes[chunk]
            if size:
                self._asked.append((file, size))
                total += size
        if wanted:
            self._chunks.want(wanted)

    def _comes(self, file: File, chunks: list[int]) -> bool:
        """Wait until what is under way of a file has ended; False where nothing comes any more."""
        counters = self._chunks.counters
        fetched = counters.fetched_chunks
        silent_s = 0.0
        while not file.begun and not self._chunks.wait_for(chunks, LOOK_S):
            silent_s = silent_s + LOOK_S if counters.fetched_chunks == fetched else 0.0
            fetched = counters.fetched_chunks
            if silent_s >= SILENT_S:
                return False
        return True


def named_files(profile: Profile, index: ChunkIndex, files: list[File]) -> list[File]:
    """Return those of ``files``, sorted by offset, that a profile reads, in that order."""
    offsets = [file.offset for file in files]
    named: dict[File, None] = {}
    for first, pages in profile.reads:
        start, end = first * BLOCK, (first + pages) * BLOCK
        if end <= index.data_start:
            continue
        at = max(bisect_right(offsets, start) - 1, 0)
        while at < len(files) and offsets[at] < end:
            if offsets[at] + files[at].size > start:
                named.setdefault(files[at])
            at += 1
    return list(named)
