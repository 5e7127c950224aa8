"""Any bytes of ``image.erofs``: bootstrap frames from their file, data from chunks.

This is the one way to the contents of a converted image: the daemon of either
mode and ``bootfs check`` read through it.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from bisect import bisect_right

from store.errors import BootfsError, SizeMismatch
from store.format.chunkindex import FRAME, HOLE
from store.format.digest import check_digest
from store.read.fetch import ChunkReader

FRAMES_KEPT = 16
"""Plain bootstrap frames in memory: 4 MiB; the kernel caches what it has read."""
ZEROS = bytes(1 << 20)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from store.format.chunkindex import ChunkIndex


class Bootstrap:
    """The plain bytes of a bootstrap, verified frame by frame."""

    def __init__(self, fd: int, index: ChunkIndex) -> None:
        """Read from ``fd``; it is this object's from here on."""
        self._fd = fd
        self._index = index
        self._lock = allocate_lock()
        self._frames: dict[int, bytes] = {}

    def frame(self, number: int) -> bytes:
        """Return the plain bytes of one frame.

        Raises:
            IntegrityError: the bootstrap file is not the one the chunk index names.

        """
        with self._lock:
            plain = self._frames.get(number)
        if plain is not None:
            return plain
        index = self._index
        start = index.frame_starts[number]
        size = index.frame_starts[number + 1] - start
        try:
            stored = os.pread(self._fd, size, start)
        except OSError as error:
            raise BootfsError(f"bootstrap frame {number}: {error.strerror}") from None
        if len(stored) != size:
            raise SizeMismatch(f"bootstrap frame {number}", size, len(stored))
        check_digest(stored, index.frame_digests[number], f"bootstrap frame {number}")
        plain_size = min(FRAME, index.bootstrap_size - number * FRAME)
        if size == plain_size:
            plain = stored
        else:
            # Here, since what this release writes needs no decompressor.
            from store.format.zstdframe import decompress

            plain = decompress(stored, plain_size, f"bootstrap frame {number}")
        with self._lock:
            while len(self._frames) >= FRAMES_KEPT:
                del self._frames[next(iter(self._frames))]
            self._frames[number] = plain
        return plain

    def close(self) -> None:
        """Close the bootstrap file."""
        os.close(self._fd)

    def read_all(self) -> bytes:
        """Return the whole plain bootstrap."""
        return b"".join(self.frame(i) for i in range(len(self._index.frame_digests)))


class ImageReader:
    """Random access to ``image.erofs``; many threads may read at once."""

    def __init__(self, bootstrap: Bootstrap, chunks: ChunkReader) -> None:
        self.bootstrap = bootstrap
        self.chunks = chunks
        self.index = chunks.index
        self.size = self.index.data_start + self.index.data_size

    def close(self) -> None:
        """Close what was opened to read from; no read may be under way."""
        self.bootstrap.close()

    def read(self, offset: int, size: int) -> list[bytes | memoryview]:
        """Return the ``size`` bytes from ``offset`` in pieces; fewer where the image ends.

        Raises:
            BootfsError: they cannot be had, or not unharmed.  Never zeros instead.

        """
        end = min(offset + size, self.size)
        pieces: list[bytes | memoryview] = []
        index = self.index
        while offset < end and offset < index.data_start:
            if offset < index.bootstrap_size:
                number = offset // FRAME
                at = offset - number * FRAME
                piece = memoryview(self.bootstrap.frame(number))[at : at + end - offset]
            else:
                piece = memoryview(ZEROS)[: min(end, index.data_start) - offset]
            pieces.append(piece)
            offset += len(piece)
        if offset < end:
            self._read_data(offset - index.data_start, end - index.data_start, pieces)
        return pieces

    def chunks_of(self, offset: int, size: int) -> list[int]:
        """Return the chunks, in order, that the ``size`` bytes from ``offset`` are made of."""
        start = max(offset - self.index.data_start, 0)
        first, last = self._places(start, offset + size - self.index.data_start)
        return [c for c in self.index.place_chunks[first : last + 1] if c != HOLE]

    def _places(self, start: int, end: int) -> tuple[int, int]:
        """Return the first and last place of the data's bytes ``start`` to ``end``."""
        starts = self.index.starts
        first = bisect_right(starts, start) - 1
        last = first
        while starts[last + 1] < end:
            last += 1
        return first, last

    def _read_data(self, start: int, end: int, pieces: list[bytes | memoryview]) -> None:
        starts, place_chunks = self.index.starts, self.index.place_chunks
        first, last = self._places(start, end)
        wanted = [c for c in place_chunks[first : last + 1] if c != HOLE]
        plains = self.chunks.read(wanted) if wanted else {}
        for place in range(first, last + 1):
            at = max(start - starts[place], 0)
            until = min(end, starts[place + 1]) - starts[place]
            chunk = place_chunks[place]
            if chunk != HOLE:
                pieces.append(memoryview(plains[chunk])[at:until])
                continue
            left = until - at
            while left:
                pieces.append(memoryview(ZEROS)[:left])
                left -= min(left, len(ZEROS))
