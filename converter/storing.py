"""Put a data region into a store: cut, find what is there, pack the rest, index it all.

Hash and dedup run in order in one thread, so that the same tree and the same
store give the same packs and the same chunk index.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from converter.chunker import cut
from converter.order import Region
from converter.records.known import Known, Place
from store.format.chunkindex import FRAME, HOLE, WITH_FILTERED, ChunkIndex
from store.format.digest import digest_of
from store.format.names import pack_name
from store.interfaces import Backend
from store.write.catalogue import Catalogue, read_catalogue
from store.write.packwriter import PackWriter


@dataclass(slots=True)
class Stored:
    """What one data region became; sizes are bytes."""

    index: ChunkIndex
    new_chunks: int = 0
    new_bytes: int = 0
    """Bytes of the packs written."""
    referenced_bytes: int = 0
    """Stored size of all the image's chunks, new and found."""


class _Chunks:
    """The distinct chunks of an image, in order of first appearance."""

    def __init__(self, catalogue: Catalogue, backend: Backend) -> None:
        self.catalogue = catalogue
        self._backend = backend
        self._are_there: dict[int, bool] = {}
        self.numbers: dict[bytes, int] = {}
        self.plain_sizes = array("I")

    def number_of(self, digest: bytes, size: int) -> tuple[int, bool]:
        """Return the chunk's number, and whether its bytes must be stored now."""
        number = self.numbers.get(digest)
        if number is not None:
            return number, False
        number = len(self.numbers)
        self.numbers[digest] = number
        self.plain_sizes.append(size)
        return number, not self.is_stored(digest)

    def is_stored(self, digest: bytes) -> bool:
        """Whether a pack holds the chunk, and no collection takes that before the commit.

        A pack that no manifest names is made young when it is first used; until then it
        may have gone.
        """
        found = self.catalogue.places.get(digest)
        if found is None:
            return False
        pack = found[0]
        if pack not in self.catalogue.unnamed:
            return True
        if pack not in self._are_there:
            name = pack_name(self.catalogue.packs[pack][0])
            self._are_there[pack] = self._backend.refresh(name)
        return self._are_there[pack]


def store_region(
    region: Region,
    backend: Backend,
    level: int,
    advance: Callable[[int], None],
    known: Known | None = None,
) -> Stored:
    """Store every chunk of ``region`` that the store lacks; return the chunk index.

    What is ``known`` to be cut into chunks that the store has is not read.  The index
    still lacks the bootstrap's part (`add_bootstrap`).  ``advance`` is told plain bytes
    as they are done.

    Raises:
        StorageFull, AccessDenied, RemoteError: as the backend does; what was
            written by then are whole packs that nothing refers to.

    """
    catalogue = read_catalogue(backend)
    chunks = _Chunks(catalogue, backend)
    index = ChunkIndex()
    new_chunks = 0
    workers = os.cpu_count() or 1
    found: Sequence[Place | None] = [None] * len(region.streams)
    if known is not None:
        found = known.find_places(region, backend, catalogue, chunks.is_stored)
    with PackWriter(backend, level, workers) as packs:
        for stream, place in zip(region.streams, found, strict=True):
            if place is not None:
                record, places = place
                for size, known_digest in record.iter_pieces(places):
                    index.starts.append(index.starts[-1] + size)
                    index.place_chunks.append(
                        HOLE if known_digest is None else chunks.number_of(known_digest, size)[0]
                    )
                advance(stream.size)
                continue
            for piece in cut(stream):
                index.starts.append(index.starts[-1] + piece.size)
                if piece.plain is None:
                    index.place_chunks.append(HOLE)
                else:
                    digest = digest_of(piece.plain)
                    number, is_new = chunks.number_of(digest, piece.size)
                    index.place_chunks.append(number)
                    if is_new:
                        new_chunks += 1
                        packs.add(number, digest, piece.plain)
                advance(piece.size)
        packs.finish()
    index.data_size = region.size
    index.plain_sizes = chunks.plain_sizes
    index.digests = b"".join(chunks.numbers)
    _place_chunks(index, chunks, packs)
    return Stored(
        index,
        new_chunks=new_chunks,
        new_bytes=sum(size for _, size in packs.packs),
        referenced_bytes=sum(index.stored_sizes),
    )


def _place_chunks(index: ChunkIndex, chunks: _Chunks, packs: PackWriter) -> None:
    """Say of each chunk where it lies; packs are numbered in order of first use."""
    numbers: dict[bytes, int] = {}
    for number, digest in enumerate(chunks.numbers):
        if number in packs.places:
            place, entry = packs.places[number]
            pack, size = packs.packs[place]
            has_filtered = place in packs.with_filtered
        else:
            place, entry = chunks.catalogue.places[digest]
            pack, size = chunks.catalogue.packs[place]
            has_filtered = place in chunks.catalogue.with_filtered
        if has_filtered:
            index.version = WITH_FILTERED
        if pack not in numbers:
            numbers[pack] = len(numbers)
            index.pack_digests.append(pack)
            index.pack_sizes.append(size)
        index.packs.append(numbers[pack])
        index.offsets.append(entry.offset)
        index.stored_sizes.append(entry.stored_size)


def add_bootstrap(index: ChunkIndex, bootstrap: bytes, data_start: int) -> None:
    """Describe the bootstrap in ``index``: its file is its plain bytes.

    The layer that carries it is compressed as a whole; a start that had to decompress
    it would take 2 ms longer (docs/decisions/0010-plain-metadata.md).
    """
    plain = memoryview(bootstrap)
    frames = [plain[at : at + FRAME] for at in range(0, len(plain), FRAME)]
    index.bootstrap_size = len(bootstrap)
    index.data_start = data_start
    index.frame_starts = array("Q", accumulate(map(len, frames), initial=0))
    index.frame_digests = [digest_of(frame) for frame in frames]
