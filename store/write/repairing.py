"""Get damaged and missing objects of a store again, whole, from a store that has them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from store.errors import (
    BootfsError,
    DigestMismatch,
    FormatError,
    IntegrityError,
    NotFound,
)
from store.format.chunkindex import BODY_LIMIT, HEADER
from store.format.digest import check_digest
from store.format.profile import DOCUMENT_LIMIT, parse_profiles
from store.interfaces import Backend, Objects
from store.write.checking import (
    OPTIONAL,
    PIECE,
    Problem,
    iter_checked_frames,
    parse_name,
    read_index,
)
from store.write.manifest import encode_manifest


def repair(backend: Backend, mirror: Objects, name: str) -> str:
    """Put object ``name`` of ``mirror`` into ``backend``; return why not, empty when it is there.

    What was there is replaced when all bytes of the other are verified and safe, and
    stays otherwise; but what only costs time where it is missing is removed where the mirror
    has it no better.
    """
    try:
        backend.replace(name, _iter_verified(backend, mirror, name))
    except (NotFound, IntegrityError, FormatError) as error:
        parsed = parse_name(name)
        if parsed is None or parsed[0] not in OPTIONAL or not backend.has(name):
            return str(error)
        try:
            backend.remove([name])
        except BootfsError as refused:
            return f"{error}; and it cannot be removed: {refused}"
        return f"{error}; removed, since it only makes starts faster"
    except BootfsError as error:
        return str(error)
    return ""


def _iter_verified(backend: Backend, mirror: Objects, name: str) -> Iterator[bytes]:
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
    if kind in ("packs", "hot"):
        yield from _iter_pack(mirror, name, digest, where)
    elif kind == "bootstraps":
        index = read_index(backend, digest)
        yield from iter_checked_frames(index, lambda o, s: mirror.fetch(name, o, s), where)
    elif kind == "indexes":
        encoded = _fetch_whole(mirror, name, HEADER.size + BODY_LIMIT, where)
        check_digest(encoded, digest, where)
        yield encoded
    elif kind == "profiles":
        # Which may be others than were here.
        encoded = _fetch_whole(mirror, name, DOCUMENT_LIMIT, where)
        parse_profiles(encoded, digest, where)
        yield encoded
    else:
        # No digest covers it, and all of it follows from the chunk index.
        index = read_index(backend, digest)
        packs = list(zip(index.pack_digests, index.pack_sizes, strict=True))
        yield encode_manifest(digest, packs)


def _iter_pieces(mirror: Objects, name: str, size: int) -> Iterator[bytes]:
    for at in range(0, size, PIECE):
        yield mirror.fetch(name, at, min(PIECE, size - at))


def _iter_pack(mirror: Objects, name: str, digest: bytes, where: str) -> Iterator[bytes]:
    hashed = hashlib.sha256()
    for piece in _iter_pieces(mirror, name, mirror.size(name)):
        hashed.update(piece)
        yield piece
    if hashed.digest() != digest:
        raise DigestMismatch(where, f"sha256:{digest.hex()}", f"sha256:{hashed.hexdigest()}")


def _fetch_whole(mirror: Objects, name: str, limit: int, where: str) -> bytes:
    size = mirror.size(name)
    if size > limit:
        raise FormatError(where, limit, f"{size} bytes are too many")
    return b"".join(_iter_pieces(mirror, name, size))


def iter_repaired(
    backend: Backend, mirror: Objects, find: Callable[[], Iterable[Problem]]
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
