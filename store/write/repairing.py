"""Get damaged and missing objects of a store again, whole, from a store that has them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from store.errors import (
    BootfsError,
    DigestMismatch,
    FormatError,
    RemoteProtocolError,
    SizeMismatch,
    UsageError,
)
from store.format.chunkindex import BODY_LIMIT, HEADER
from store.format.digest import check_digest
from store.format.names import STORE_MARK, STORE_MARK_TEXT
from store.interfaces import Backend, Source
from store.write.backends import open_backend
from store.write.checking import PIECE, Problem, iter_checked_frames, parse_name, read_index
from store.write.hostsource import open_host_source
from store.write.manifest import encode_manifest

BEYOND = 1 << 62
"""Offset behind the end of any object."""


class Mirror(Protocol):
    """A store to read whole objects from."""

    location: str

    def fetch(self, name: str, offset: int, size: int) -> bytes:
        """Return bytes of an object; see `Source`."""

    def size(self, name: str) -> int:
        """Return the object's size; see `Backend`."""

    def close(self) -> None:
        """Let go of what is open."""


class HttpMirror:
    """A store behind a web server."""

    def __init__(self, source: Source) -> None:
        self.location = source.location
        self._source = source

    def fetch(self, name: str, offset: int, size: int) -> bytes:
        """Return bytes of an object; see `Source`."""
        return self._source.fetch(name, offset, size)

    def size(self, name: str) -> int:
        """Return the object's size, which the server says of a range that begins behind it.

        Raises:
            PackNotFound, AccessDenied, RemoteError: as `Source.fetch`.

        """
        try:
            self._source.fetch(name, BEYOND, 1)
        except SizeMismatch as error:
            if error.actual > 0:
                return error.actual
        raise RemoteProtocolError(f"{self.location}: the server does not say how large {name} is")

    def close(self) -> None:
        """Let go of what is open."""
        self._source.close()


def open_mirror(url: str, read_limit_s: float) -> Mirror:
    """Return read access to the whole objects of the store at ``url``.

    Raises:
        UsageError: there is no store.
        Unreachable, AccessDenied: it cannot be read.

    """
    if url.partition("://")[0].lower() in ("http", "https"):
        mirror: Mirror = HttpMirror(open_host_source(url, read_limit_s))
    else:
        mirror = open_backend(url)
    try:
        if mirror.fetch(STORE_MARK, 0, len(STORE_MARK_TEXT)) != STORE_MARK_TEXT:
            raise UsageError(f"{url}: a store of another version; give another mirror")
    except BaseException:
        mirror.close()
        raise
    return mirror


def repair(backend: Backend, mirror: Mirror, name: str) -> str:
    """Put object ``name`` of ``mirror`` into ``backend``; return why not, empty when it is there.

    What was there is replaced when all bytes of the other are verified and safe, and
    stays otherwise.
    """
    try:
        backend.replace(name, _iter_verified(backend, mirror, name))
    except BootfsError as error:
        return str(error)
    return ""


def _iter_verified(backend: Backend, mirror: Mirror, name: str) -> Iterator[bytes]:
    """Yield the bytes of an object; raise before the last of them where they are not right.

    Raises:
        FormatError, IntegrityError: the mirror's copy is damaged too.
        BootfsError: as the mirror does; the chunk index that says what is right is damaged.

    """
    parsed = parse_name(name)
    if parsed is None:
        raise FormatError(name, 0, "not the name of an object")
    kind, digest = parsed
    where = f"{mirror.location.rstrip('/')}/{name}"
    if kind == "packs":
        yield from _iter_pack(mirror, name, digest, where)
    elif kind == "bootstraps":
        index = read_index(backend, digest)
        yield from iter_checked_frames(index, lambda o, s: mirror.fetch(name, o, s), where)
    elif kind == "indexes":
        encoded = _fetch_whole(mirror, name, HEADER.size + BODY_LIMIT, where)
        check_digest(encoded, digest, where)
        yield encoded
    else:
        # No digest covers it, and all of it follows from the chunk index.
        index = read_index(backend, digest)
        packs = list(zip(index.pack_digests, index.pack_sizes, strict=True))
        yield encode_manifest(digest, packs)


def _iter_pieces(mirror: Mirror, name: str, size: int) -> Iterator[bytes]:
    for at in range(0, size, PIECE):
        yield mirror.fetch(name, at, min(PIECE, size - at))


def _iter_pack(mirror: Mirror, name: str, digest: bytes, where: str) -> Iterator[bytes]:
    hashed = hashlib.sha256()
    for piece in _iter_pieces(mirror, name, mirror.size(name)):
        hashed.update(piece)
        yield piece
    if hashed.digest() != digest:
        raise DigestMismatch(where, f"sha256:{digest.hex()}", f"sha256:{hashed.hexdigest()}")


def _fetch_whole(mirror: Mirror, name: str, limit: int, where: str) -> bytes:
    size = mirror.size(name)
    if size > limit:
        raise FormatError(where, limit, f"{size} bytes are too many")
    return b"".join(_iter_pieces(mirror, name, size))


def iter_repaired(
    backend: Backend, mirror: Mirror, find: Callable[[], Iterable[Problem]]
) -> Iterator[tuple[Problem, str]]:
    """Repair what ``find`` finds, until it finds nothing new.

    Yields each problem and why it is left, which is empty where it is not; the last that
    is said of a name holds.  Again and again, because an object that was damaged
    may name others that are missing.
    """
    is_mended: dict[str, bool] = {}
    while True:
        is_new = False
        for problem in list(find()):
            before = is_mended.get(problem.name)
            if before is False:
                continue
            if before:
                left = f"what {mirror.location} has is no better"
            elif not problem.is_fetchable:
                left = "no other store can help"
            else:
                left = repair(backend, mirror, problem.name)
            is_mended[problem.name] = not left
            is_new |= not left
            yield problem, left
        if not is_new:
            return
