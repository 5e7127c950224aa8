"""Write chunks into packs: compressed side by side, written in the order they came.

Order in, order out: the bytes of a pack depend on the chunks and the level
alone, never on which thread was faster.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local

from zstandard import ZstdCompressor

from store.errors import FormatError
from store.format.names import pack_name
from store.format.packfile import (
    FILTERED,
    FOOTER,
    HEADER,
    VERSION,
    WITH_FILTERED,
    PackEntry,
    encode_header,
    encode_tail,
    parse_footer,
    parse_table,
)
from store.interfaces import Backend
from store.read.branches import filtered

PACK_TARGET = 32 << 20
"""A pack is closed when its bodies reach this: few objects, and one conversion that
fails loses little of what it wrote."""

AHEAD = 16
"""Chunks a worker may have waiting, 4 MiB at most: nobody idles while one is cut or hashed."""

FILTER_LEVEL = 10
"""From this zstd level on, code is filtered: who chose it waits for fewer bytes."""
CODE = 100
"""What has fewer displacements than one among so many bytes is no code: the filter does harm."""
TRIAL_LEVEL = 1
"""Tells as well as any level whether code gets smaller by the filter, at 2 % of the time."""

_per_thread = local()


def compress(plain: bytes, level: int) -> bytes:
    """Return a chunk's body: a zstd frame, or ``plain`` itself where that is not smaller.

    From `FILTER_LEVEL` on, that of code is `FILTERED` and a frame of the filtered bytes: it
    depends on bytes and level alone all the same.  Neither size nor checksum is kept in the
    frame: the tables hold the one, the digest does more than the other.
    """
    turned = _filtered_code(plain) if level >= FILTER_LEVEL else None
    if turned is None:
        body: bytes = _compressor(level).compress(plain)
    else:
        body = FILTERED + _compressor(level).compress(turned)
    return body if len(body) < len(plain) else plain


def _filtered_code(plain: bytes) -> bytes | None:
    """Return a chunk filtered, or None where that would not make it smaller."""
    turned, count = filtered(plain)
    if count * CODE < len(plain):
        return None
    trial = _compressor(TRIAL_LEVEL)
    return turned if len(trial.compress(turned)) < len(trial.compress(plain)) else None


def _compressor(level: int) -> ZstdCompressor:
    """Return this thread's own compressor."""
    made: dict[int, ZstdCompressor] | None = getattr(_per_thread, "made", None)
    if made is None:
        made = _per_thread.made = {}
    if level not in made:
        made[level] = ZstdCompressor(level, write_checksum=False, write_content_size=False)
    return made[level]


class PackWriter:
    """Takes chunks, gives packs to a backend.  For one thread; a context manager.

    Left by an exception it writes nothing more; what was written stays, complete
    and unreferenced.
    """

    def __init__(self, backend: Backend, level: int, workers: int) -> None:
        self._backend = backend
        self._level = level
        self._pool = ThreadPoolExecutor(workers)
        self._uploads = ThreadPoolExecutor(1)
        self._queue: deque[tuple[int, bytes, int, Future[bytes]]] = deque()
        self._ahead = AHEAD * workers
        self._written: deque[Future[tuple[bytes, int]]] = deque()
        self._bodies: list[bytes] = []
        self._entries: list[PackEntry] = []
        self._numbers: list[int] = []
        self._at = HEADER.size
        self._version = VERSION
        self._pack_count = 0
        self.packs: list[tuple[bytes, int]] = []
        """Raw SHA-256 digest and size of each pack written; complete after `finish`."""
        self.with_filtered: set[int] = set()
        """Positions in ``packs`` of those with filtered bodies."""
        self.places: dict[int, tuple[int, PackEntry]] = {}
        """Number given by the caller to (position in ``packs``, entry)."""

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._uploads.shutdown(wait=True, cancel_futures=True)

    def add(self, number: int, digest: bytes, plain: bytes) -> None:
        """Take a chunk; its place is known after `finish`, under ``number``."""
        future = self._pool.submit(compress, plain, self._level)
        self._queue.append((number, digest, len(plain), future))
        # Bounded: what is not yet compressed is all in memory.
        while len(self._queue) > self._ahead or (self._queue and self._queue[0][3].done()):
            self._drain_one()

    def finish(self) -> None:
        """Write all that was taken; afterwards ``packs`` and ``places`` are complete.

        Raises:
            StorageFull, AccessDenied, RemoteError: as the backend does.

        """
        while self._queue:
            self._drain_one()
        if self._entries:
            self._close_pack()
        while self._written:
            self.packs.append(self._written.popleft().result())

    def _drain_one(self) -> None:
        number, digest, plain_size, future = self._queue.popleft()
        body = future.result()
        if self._at + len(body) > PACK_TARGET and self._entries:
            self._close_pack()
        self._entries.append(PackEntry(digest, self._at, len(body), plain_size))
        self._numbers.append(number)
        self._bodies.append(body)
        if len(body) < plain_size and body.startswith(FILTERED):
            self._version = WITH_FILTERED
        self._at += len(body)

    def _close_pack(self) -> None:
        # Two packs in memory at most: the one being filled and the one being written.
        while self._written:
            self.packs.append(self._written.popleft().result())
        head, tail = encode_header(self._version), encode_tail(self._entries, self._version)
        pieces = [head, *self._bodies, tail]
        _check_tail(pieces[-1], self._at + len(pieces[-1]), self._entries)
        self.places.update(
            (number, (self._pack_count, entry))
            for number, entry in zip(self._numbers, self._entries, strict=True)
        )
        if self._version == WITH_FILTERED:
            self.with_filtered.add(self._pack_count)
        self._version = VERSION
        self._pack_count += 1
        self._written.append(self._uploads.submit(self._write, pieces))
        self._bodies, self._entries, self._numbers = [], [], []
        self._at = HEADER.size

    def _write(self, pieces: list[bytes]) -> tuple[bytes, int]:
        """Name a pack and write it; return its raw digest and size."""
        hashed = hashlib.sha256()
        for piece in pieces:
            hashed.update(piece)
        self._backend.write(pack_name(hashed.digest()), iter(pieces))
        return hashed.digest(), sum(map(len, pieces))


def _check_tail(tail: bytes, size: int, entries: list[PackEntry]) -> None:
    """Parse what is about to be written: a pack that cannot be read back is never stored."""
    footer = tail[-FOOTER.size :]
    table_at, table_size, digest = parse_footer(footer, size)
    if parse_table(tail[:table_size], digest, table_at) != entries:
        raise FormatError("pack", table_at, "the table does not say what was written")
