"""Chunks kept on this machine, shared by all containers that mount one cache volume.

Implements docs/format.md, "Cache, layout 2".  Per image a sparse data file, in which
chunk ``c`` lies at the sum of the plain sizes before it, a presence map of one byte a
chunk, and what others need to make room in it.  Nothing here is trusted: a reader
verifies every chunk, so a map that lies, a torn write or a flipped bit costs one more
fetch and never a wrong byte.  That is why no write is synced.  No file is mapped: one
that somebody cuts short would end its readers (SIGBUS).
"""

from __future__ import annotations

import os
from errno import EDQUOT, EFBIG, ENOSPC, EROFS
from itertools import accumulate
from time import monotonic, time

from store.errors import BootfsError
from store.format.names import CACHE_LAYOUT

FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Not through a link, and not waiting for a pipe's other end: others write into the cache."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
PAUSE_S = 10.0
"""For so long nothing is written after the disk was full."""
SEGMENT = 1 << 20
"""Bytes of a data file that are given up together, when room is made."""
STAMP = 4
"""Bytes of a segment's entry in ``used``: seconds since 1970, little-endian; 0 for never."""
STAMPED_S = 60.0
"""A segment's use is noted once in this time."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from store.read.cachelimit import CacheLimit
    from store.read.claims import Claims
    from store.read.places import Places


def list_directory(directory: int) -> list[str]:
    """Return the names in an open directory; other threads may list it too."""
    own = os.open(".", DIRECTORY, dir_fd=directory)
    try:
        return os.listdir(own)
    finally:
        os.close(own)


def _make_directory(place: str, parent: int | None) -> None:
    try:
        os.mkdir(place, 0o700, dir_fd=parent)
    except FileExistsError:
        return


class CacheUnusable(BootfsError):
    """The cache volume cannot be opened or written; reading goes on without it."""


class Cache:
    """The cached chunks of one image.  May be used by many threads and processes at once."""

    def __init__(
        self,
        directory: str,
        name: str,
        plain_sizes: array[int],
        log: Callable[[str], None],
        limit: int = 0,
        owner: int = 0,
    ) -> None:
        """Open, and make where missing, the cache of image ``name`` below ``directory``.

        The data of all images there are kept to ``limit`` bytes by what this one
        writes; 0 is without limit.  ``owner`` is as for `Claims`.

        Raises:
            CacheUnusable: it can be neither.

        """
        self._log = log
        self._sizes = plain_sizes
        self._bytes = sum(plain_sizes)
        self._offsets: list[int] = []
        self._paused_until = 0.0
        self._tells = True
        self._byte = bytearray(1)
        self._stamped = bytearray(-(-self._bytes // SEGMENT))
        self._stamps_until = 0.0
        self._name = name
        self._limit_bytes = limit
        self._owner = owner
        self._limit: CacheLimit | None = None
        self._places: Places | None = None
        self._claims: Claims | None = None
        self._data = self._present = self._used = -1
        self._directories: list[int] = []
        """The directories of all images and of this one, open."""
        self.path = ""
        """Leads to the latter, whatever others put in its place, where there is a /proc."""
        self._here = bytearray(len(plain_sizes))
        """What the map said when it was last read, a byte a chunk."""
        if not plain_sizes:
            return
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            root = self._enter(f"{directory}/{CACHE_LAYOUT}")
            own = self._enter(name, root)
            self.path = f"/proc/self/fd/{own}"
            self._data = os.open("data", FLAGS, 0o600, dir_fd=own)
            if os.fstat(self._data).st_size < self._bytes:
                os.truncate(self._data, self._bytes)
            self._present = os.open("present", FLAGS, 0o600, dir_fd=own)
            self._used = os.open("used", FLAGS, 0o600, dir_fd=own)
            present = os.pread(self._present, len(plain_sizes), 0)
            self._here[: len(present)] = present
            if not present:
                self._describe()
        except OSError as error:
            self.close()
            raise CacheUnusable(
                f"cache {directory}: {error.strerror}; reading without a cache"
            ) from None

    def _enter(self, place: str, parent: int | None = None) -> int:
        """Return directory ``place``, open, which is made where it is missing."""
        _make_directory(place, parent)
        # Not through a link: whoever shares the volume may have put one there, to data of ours.
        self._directories.append(os.open(place, DIRECTORY, dir_fd=parent))
        return self._directories[-1]

    def _add_up(self) -> list[int]:
        """Return where each chunk lies in the data file, and where the last one ends.

        Made when it is first asked for: until the image is mounted, each millisecond is the
        boot's.  Threads that ask at once make the same.
        """
        if not self._offsets:
            self._offsets = list(accumulate(self._sizes, initial=0))
        return self._offsets

    def _describe(self) -> None:
        """Write where each chunk begins, for those who make room and know nothing of the image."""
        sizes = os.open("sizes", FLAGS, 0o600, dir_fd=self._directories[1])
        try:
            os.pwrite(sizes, self._sizes, 0)
        finally:
            os.close(sizes)

    def close(self) -> None:
        """Close the files; no read or write may be under way or follow."""
        for fd in (self._data, self._present, self._used, *self._directories):
            if fd >= 0:
                os.close(fd)
        self._data = self._present = self._used = -1
        self._directories.clear()
        for part in (self._limit, self._places, self._claims):
            if part is not None:
                part.close()
        self._limit = self._places = self._claims = None

    def read(self, first: int, count: int = 1) -> memoryview | None:
        """Return the plain bytes of ``count`` chunks from ``first`` as they lie here, or None.

        One read, since neighbours lie side by side.  Unverified; None where the map
        claims not all of them.
        """
        end = first + count
        if self._here.find(b"\0", first, end) >= 0 and not self._look(first, count):
            return None
        offsets = self._offsets or self._add_up()
        start = offsets[first]
        size = offsets[end] - start
        try:
            data = os.pread(self._data, size, start)
        except OSError:
            # A bad sector is a chunk that is not there: it is fetched again.
            return None
        if len(data) != size:
            return None
        self._stamp(start, start + size)
        return memoryview(data)

    def looks_present(self, chunk: int) -> bool:
        """Whether the presence map claims the chunk now, whatever it did before."""
        return self._look(chunk, 1)

    def _look(self, first: int, count: int) -> bool:
        """Read the map again; return whether it claims all of these chunks."""
        if self._present < 0:
            return False
        try:
            present = os.pread(self._present, count, first)
        except OSError:
            return False
        self._here[first : first + len(present)] = present
        return len(present) == count and 0 not in present

    def _stamp(self, start: int, end: int) -> None:
        """Note that these bytes of the data file were used now."""
        now = monotonic()
        if now >= self._stamps_until:
            self._stamped = bytearray(len(self._stamped))
            self._stamps_until = now + STAMPED_S
        for segment in range(start // SEGMENT, -(-end // SEGMENT)):
            if not self._stamped[segment]:
                self._stamped[segment] = 1
                try:
                    stamp = int(time()).to_bytes(STAMP, "little")
                    os.pwrite(self._used, stamp, segment * STAMP)
                except OSError:
                    # Full, or read-only: what is used seems older than it is, and goes sooner.
                    return

    def is_at_hand(self, first: int, count: int = 1) -> bool:
        """Whether reading these chunks needs no disk, as far as their last page tells."""
        if not self._tells:
            return True
        try:
            os.preadv(self._data, [self._byte], self._add_up()[first + count] - 1, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:
            # A file system that cannot tell (EOPNOTSUPP).
            self._tells = False
        return True

    def write(self, chunk: int, plain: bytes | memoryview) -> bool:
        """Keep a chunk; return whether it is.  A full disk costs the keeping, not the reader."""
        if self._present < 0 or monotonic() < self._paused_until:
            return False
        try:
            if not self._limit_bytes:
                self._write(chunk, plain)
                return True
            if self._limit is None:
                from store.read.cachelimit import CacheLimit

                self._limit = CacheLimit(self._directories[0], self._limit_bytes)
            if not self._limit.take(len(plain)):
                return False
            try:
                self._write(chunk, plain)
            finally:
                self._limit.release()
        except OSError as error:
            if error.errno not in (ENOSPC, EDQUOT, EROFS, EFBIG):
                self._log(f"cache: {error.strerror}; chunk not kept")
            else:
                self._log(f"cache: {error.strerror}; reading on without keeping")
            self._paused_until = monotonic() + PAUSE_S
            return False
        return True

    def _write(self, chunk: int, plain: bytes | memoryview) -> None:
        view = memoryview(plain)
        start = at = self._add_up()[chunk]
        while view:
            count = os.pwrite(self._data, view, at)
            view = view[count:]
            at += count
        os.pwrite(self._present, b"\1", chunk)
        self._here[chunk] = 1
        self._stamp(start, at)

    def forget(self, chunk: int) -> bool:
        """Mark a chunk as not here, after its bytes proved wrong; return whether it was marked so.

        Then somebody has made room there: nothing is damaged.
        """
        self._here[chunk] = 0
        if self._present < 0:
            return False
        try:
            was_here = self._look(chunk, 1)
            os.pwrite(self._present, b"\0", chunk)
        except OSError as error:
            self._log(f"cache: {error.strerror}; a damaged chunk stays, and is fetched each time")
            return False
        self._here[chunk] = 0
        return not was_here

    def has(self, chunk: int) -> bool:
        """Whether the presence map claims the chunk, or did when it was last read."""
        return bool(self._here[chunk]) or self._look(chunk, 1)

    @property
    def present_count(self) -> int:
        """Number of chunks that the presence map claims."""
        count = len(self._here)
        self._look(0, count)
        return count - self._here.count(0)

    @property
    def places(self) -> Places:
        """Where chunks lie in the data files of all images here.

        Raises:
            OSError: that cannot be opened.

        """
        if self._places is None:
            from store.read.places import Places

            self._places = Places(self._directories[0], self._name)
        return self._places

    @property
    def claims(self) -> Claims:
        """Who fetches what, of all containers here.

        Raises:
            OSError: that cannot be opened.

        """
        if self._claims is None:
            from store.read.claims import Claims

            self._claims = Claims(self._directories[0], self._owner)
        return self._claims

    def offset(self, chunk: int) -> int:
        """Return where a chunk lies in the data file."""
        return self._add_up()[chunk]
