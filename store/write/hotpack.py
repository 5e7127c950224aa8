"""Hot packs as they are written: made in a temporary file, since only the whole has a name."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator
from typing import BinaryIO

from store.format.chunkindex import ChunkIndex
from store.format.names import hot_pack_name
from store.format.profile import Profile
from store.interfaces import Backend, Source
from store.read.fetch import ChunkReader
from store.write.profilebuild import ANALYSIS
from store.write.profiles import LEVEL, QUICK_LEVEL, iter_hot_pack
from store.write.temporary import temporary_file

BATCH = 4 << 20
"""Plain bytes of chunks that are asked for at once; less than a `ChunkReader` keeps."""
PIECE = 1 << 20


def write_hot_pack(
    backend: Backend,
    index: ChunkIndex,
    profile: Profile,
    advance: Callable[[int], None],
    read: Callable[[int], bytes] | None = None,
) -> None:
    """Write the hot pack of a profile, and note in the profile which it is.

    ``read`` returns the plain bytes of a chunk, verified; without it they are read from the
    packs of ``backend``.  ``advance`` is told their number.  A profile without chunks has no
    hot pack.

    Raises:
        PackNotFound, IntegrityError: a chunk is missing or damaged.
        StorageFull, AccessDenied, RemoteError: as they say.

    """
    profile.hot_pack, profile.hot_pack_size = bytes(len(profile.hot_pack)), 0
    if not profile.chunks:
        return
    hashed = hashlib.sha256()
    with temporary_file() as file:
        plain = read or _reader(index, backend, profile.chunks)
        level = QUICK_LEVEL if profile.origin == ANALYSIS else LEVEL
        for piece in iter_hot_pack(profile.chunks, _counted(plain, advance), level):
            hashed.update(piece)
            file.write(piece)
        file.flush()
        size = os.fstat(file.fileno()).st_size
        backend.write(hot_pack_name(hashed.digest()), _iter_file(file, size))
    profile.hot_pack, profile.hot_pack_size = hashed.digest(), size


def _counted(
    read: Callable[[int], bytes], advance: Callable[[int], None]
) -> Callable[[int], bytes]:
    def counted(chunk: int) -> bytes:
        plain = read(chunk)
        advance(len(plain))
        return plain

    return counted


def _reader(index: ChunkIndex, source: Source, chunks: array[int]) -> Callable[[int], bytes]:
    """Return what reads ``chunks``, each once and in this order."""
    reader = ChunkReader(index, source, None, lambda _: None)
    held: dict[int, bytes | memoryview] = {}
    at = 0

    def read(chunk: int) -> bytes:
        nonlocal at
        if chunk not in held:
            batch: list[int] = []
            size = 0
            while at < len(chunks) and (not batch or size < BATCH):
                batch.append(chunks[at])
                size += index.plain_sizes[chunks[at]]
                at += 1
            held.update(reader.read(batch))
        return bytes(held.pop(chunk))

    return read


def _iter_file(file: BinaryIO, size: int) -> Iterator[bytes]:
    for at in range(0, size, PIECE):
        yield os.pread(file.fileno(), PIECE, at)
