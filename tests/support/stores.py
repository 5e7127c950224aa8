"""Images put into a store without a boot image around them, and sources that watch or fail."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from converter.erofswriter import write_bootstrap
from converter.order import lay_out
from converter.storing import Stored, add_bootstrap, store_region
from converter.tree import Node
from store.format.chunkindex import (
    BLOCK,
    FRAME,
    HOLE,
    REGION_ALIGNMENT,
    ChunkIndex,
    encode_chunk_index,
)
from store.format.digest import digest_of
from store.read.cache import Cache
from store.read.fetch import ChunkReader
from store.read.image import Bootstrap, ImageReader
from store.read.local import DirectorySource
from store.write.backends.directory import DirectoryBackend

NAME = "1a" * 32
"""Of an image in a cache."""

if TYPE_CHECKING:
    from store.interfaces import Source


def make_index() -> ChunkIndex:
    """Return three chunks of one block in two packs; the first shows twice, around a hole."""
    index = ChunkIndex()
    index.bootstrap_size = FRAME + 5
    index.data_start = REGION_ALIGNMENT
    index.data_size = 6 * BLOCK
    index.frame_starts = array("Q", [0, 10, 30])
    index.frame_digests = [digest_of(b"frame 0"), digest_of(b"frame 1")]
    index.pack_digests = [bytes([1]) * 32, bytes([2]) * 32]
    index.pack_sizes = array("Q", [1000, 2000])
    index.digests = b"".join(digest_of(b"%d" % n) for n in range(3))
    index.plain_sizes = array("I", [BLOCK] * 3)
    index.stored_sizes = array("I", [100, BLOCK, 200])
    index.packs = array("I", [0, 1, 1])
    index.offsets = array("Q", [16, 16, 16 + BLOCK])
    index.pack_sizes[1] = 16 + BLOCK + 200
    index.starts = array("Q", [BLOCK * n for n in (0, 1, 2, 4, 5, 6)])
    index.place_chunks = array("I", [0, 1, HOLE, 0, 2])
    return index


class StoredImage:
    """An image whose chunks are in a directory store, and how to read it."""

    def __init__(self, tree: Node, path: Path, level: int = 1) -> None:
        self.path = path
        backend = DirectoryBackend(str(path))
        backend.create()
        region = lay_out(tree)
        self.stored: Stored = store_region(region, backend, level, lambda _: None)
        self.index: ChunkIndex = self.stored.index
        self.extents = region.extents
        bootstrap = write_bootstrap(tree, region.extents, region.size)
        self.plain_bootstrap = bootstrap.plain
        add_bootstrap(self.index, bootstrap.plain, bootstrap.data_start)
        self.encoded_index = encode_chunk_index(self.index)

    def whole(self) -> bytes:
        """Return all of image.erofs, made from the tree and not from the store."""
        image = bytearray(self.index.data_start + self.index.data_size)
        image[: len(self.plain_bootstrap)] = self.plain_bootstrap
        for node, offset in self.extents.items():
            at = self.index.data_start + offset
            image[at : at + node.content.size] = node.content.pread(0, node.content.size)
        return bytes(image)

    def open_reader(
        self,
        source: Source | None = None,
        cache: Cache | None = None,
        log: Callable[[str], None] = lambda _: None,
        memory_limit: int = 8 << 20,
    ) -> ImageReader:
        """Return a reader through ``source``, or the store's directory; the caller closes it."""
        fd = os.memfd_create("bootstrap")
        os.write(fd, self.plain_bootstrap)
        source = source or DirectorySource(str(self.path))
        chunks = ChunkReader(self.index, source, cache, log, memory_limit)
        return ImageReader(Bootstrap(fd, self.index), chunks)

    def open_cache(
        self, path: Path, log: Callable[[str], None] = lambda _: None, owner: int = 0
    ) -> Cache:
        """Return this image's cache below ``path``; the caller closes it."""
        return Cache(str(path), NAME, self.index.plain_sizes, log, owner=owner)


class WatchedSource:
    """A source that counts what it passes on, and runs ``before`` first, which may raise."""

    def __init__(
        self,
        source: Source,
        before: Callable[[str, int, int], None] = lambda *_: None,
        read_ahead: int = 0,
    ) -> None:
        self.location = source.location
        self.read_ahead = read_ahead
        self.before = before
        self.fetched: Counter[tuple[str, int, int]] = Counter()
        self._source = source
        self._lock = Lock()

    def dial(self) -> None:
        self._source.dial()

    def close(self) -> None:
        self._source.close()

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        with self._lock:
            self.fetched[name, offset, size] += 1
        self.before(name, offset, size)
        return self._source.fetch(name, offset, size, arrived)
