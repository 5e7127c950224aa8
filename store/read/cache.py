"""Chunks kept on this machine, shared by all containers that mount one cache volume.

Per image a sparse data file, in which chunk ``c`` lies at the sum of the plain
sizes before it, and a presence map of one byte a chunk.  Nothing here is
trusted: a reader verifies every chunk, so a map that lies, a torn write or a
flipped bit costs one more fetch and never a wrong byte.  That is why no write
is synced and no lock is taken.
"""

from __future__ import annotations

import os
from errno import EDQUOT, EFBIG, ENOSPC, EROFS
from itertools import accumulate
from mmap import mmap
from time import monotonic

from store.errors import BootfsError
from store.format.names import CACHE_LAYOUT

FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
PAUSE_S = 10.0
"""For so long nothing is written after the disk was full."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable


class CacheUnusable(BootfsError):
    """The cache volume cannot be opened or written; reading goes on without it."""


class Cache:
    """The cached chunks of one image.  May be used by many threads and processes at once."""

    def __init__(
        self, directory: str, name: str, plain_sizes: array[int], log: Callable[[str], None]
    ) -> None:
        """Open, and make where missing, the cache of image ``name`` below ``directory``.

        Raises:
            CacheUnusable: it can be neither.

        """
        self._log = log
        self._sizes = plain_sizes
        self._offsets = list(accumulate(plain_sizes, initial=0))
        self._paused_until = 0.0
        self._tells = True
        self._byte = bytearray(1)
        path = self.path = f"{directory}/{CACHE_LAYOUT}/{name}"
        self._data = -1
        self._present: mmap | None = None
        if not plain_sizes:
            return
        try:
            os.makedirs(path, 0o700, exist_ok=True)
            self._data = os.open(f"{path}/data", FLAGS, 0o600)
            if os.fstat(self._data).st_size < self._offsets[-1]:
                os.truncate(self._data, self._offsets[-1])
            present = os.open(f"{path}/present", FLAGS, 0o600)
            try:
                # Room for every byte, also where there was a hole: a full disk must fail
                # here, where it is an error, not at a store to the mapping (SIGBUS).
                os.posix_fallocate(present, 0, len(plain_sizes))
                self._present = mmap(present, len(plain_sizes))
            finally:
                os.close(present)
        except OSError as error:
            self.close()
            raise CacheUnusable(
                f"cache {path}: {error.strerror}; reading without a cache"
            ) from None

    def close(self) -> None:
        """Close the files; no read or write may be under way or follow."""
        if self._present is not None:
            self._present.close()
            self._present = None
        if self._data >= 0:
            os.close(self._data)
            self._data = -1

    def read(self, first: int, count: int = 1) -> memoryview | None:
        """Return the plain bytes of ``count`` chunks from ``first`` as they lie here, or None.

        One read, since neighbours lie side by side.  Unverified; None where the map
        claims not all of them.
        """
        end = first + count
        if self._present is None or self._present.find(b"\0", first, end) >= 0:
            return None
        start = self._offsets[first]
        size = self._offsets[end] - start
        try:
            data = os.pread(self._data, size, start)
        except OSError:
            # A bad sector is a chunk that is not there: it is fetched again.
            return None
        return memoryview(data) if len(data) == size else None

    def is_at_hand(self, first: int, count: int = 1) -> bool:
        """Whether reading these chunks needs no disk, as far as their last page tells."""
        if not self._tells:
            return True
        try:
            os.preadv(self._data, [self._byte], self._offsets[first + count] - 1, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:
            # A file system that cannot tell (EOPNOTSUPP).
            self._tells = False
        return True

    def write(self, chunk: int, plain: bytes) -> None:
        """Keep a chunk.  A disk that is full costs the keeping, not the reader."""
        if self._present is None or monotonic() < self._paused_until:
            return
        try:
            view = memoryview(plain)
            at = self._offsets[chunk]
            while view:
                count = os.pwrite(self._data, view, at)
                view = view[count:]
                at += count
        except OSError as error:
            if error.errno not in (ENOSPC, EDQUOT, EROFS, EFBIG):
                self._log(f"cache: {error.strerror}; chunk not kept")
            else:
                self._log(f"cache: {error.strerror}; reading on without keeping")
            self._paused_until = monotonic() + PAUSE_S
            return
        self._present[chunk] = 1

    def forget(self, chunk: int) -> None:
        """Mark a chunk as not here, after its bytes proved wrong."""
        if self._present is not None:
            self._present[chunk] = 0

    def has(self, chunk: int) -> bool:
        """Whether the presence map claims the chunk."""
        return self._present is not None and bool(self._present[chunk])

    @property
    def present_count(self) -> int:
        """Number of chunks that the presence map claims."""
        return 0 if self._present is None else len(self._sizes) - self._present[:].count(0)
