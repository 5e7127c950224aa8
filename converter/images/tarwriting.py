"""Archives of images, the same bytes for the same members on every machine."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from converter.spool import os_errors_at
from store.errors import DigestMismatch, SizeMismatch

_PIECE = 1 << 20


def iter_tar(members: Iterable[tuple[str, bytes | Path, str]]) -> Iterator[bytes]:
    """Yield a tar of ``members``: name, bytes or the file with them, and their digest.

    Members are root's, mode 0644, of 1970.

    Raises:
        NotFound: a file does not exist.
        DigestMismatch: a file's bytes are not those of its digest.

    """
    for name, data, digest in members:
        size = size_of(data)
        info = tarfile.TarInfo(name)
        info.size = size
        yield info.tobuf(tarfile.GNU_FORMAT)
        yield from iter_checked(data, size, digest, name)
        yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def size_of(data: bytes | Path) -> int:
    """Return the size of ``data``, or of the file that holds it.

    Raises:
        NotFound: there is no such file.

    """
    if isinstance(data, bytes):
        return len(data)
    with os_errors_at(data, "cannot be read"):
        return data.stat().st_size


def iter_checked(data: bytes | Path, size: int, digest: str, what: str) -> Iterator[bytes]:
    """Yield ``data``, or a file's bytes, and check at the end that it was what was promised.

    Raises:
        SizeMismatch: it has not ``size`` bytes.
        DigestMismatch: it has not ``digest``.

    """
    actual = hashlib.sha256()
    total = 0
    for piece in _iter_pieces(data):
        actual.update(piece)
        total += len(piece)
        if total > size:
            break
        yield piece
    if total != size:
        raise SizeMismatch(what, size, total)
    if f"sha256:{actual.hexdigest()}" != digest:
        raise DigestMismatch(what, digest, f"sha256:{actual.hexdigest()}")


def _iter_pieces(data: bytes | Path) -> Iterator[bytes]:
    if isinstance(data, bytes):
        if data:
            yield data
        return
    with os_errors_at(data, "cannot be read"), data.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
