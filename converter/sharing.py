"""Chunks that serve more than once: in one image, and between the images of a store."""

from __future__ import annotations

from dataclasses import dataclass, field

from store.errors import FormatError, IntegrityError, PackNotFound, UsageError
from store.format.chunkindex import HOLE, ChunkIndex, parse_chunk_index
from store.format.digest import check_digest
from store.format.names import chunk_index_name
from store.format.shownurl import shown
from store.interfaces import Backend
from store.write.roots import MANIFESTS


@dataclass(slots=True)
class Repeats:
    """Chunks that show at several places of one image; sizes are bytes."""

    chunks: int = 0
    places: int = 0
    plain_saved: int = 0
    """What each place after a chunk's first would take."""
    stored_saved: int = 0


@dataclass(frozen=True, slots=True)
class Overlap:
    """What an image has in common with others; ``stored`` is bytes in the store."""

    chunks: int = 0
    stored: int = 0


@dataclass(slots=True)
class Sharing:
    """What an image shares with the other images of a store."""

    shared: Overlap = field(default_factory=Overlap)
    """With any of them."""
    images: dict[bytes, Overlap] = field(default_factory=dict)
    """With each, by the raw digest of its chunk index, the most shared first."""


def count_repeats(index: ChunkIndex) -> Repeats:
    """Return what places of one image have in common."""
    uses = [0] * index.chunk_count
    for chunk in index.place_chunks:
        if chunk != HOLE:
            uses[chunk] += 1
    repeats = Repeats()
    for chunk, count in enumerate(uses):
        if count > 1:
            repeats.chunks += 1
            repeats.places += count
            repeats.plain_saved += (count - 1) * index.plain_sizes[chunk]
            repeats.stored_saved += (count - 1) * index.stored_sizes[chunk]
    return repeats


def stored_chunks(index: ChunkIndex) -> dict[bytes, int]:
    """Return the raw digest and stored size of each chunk of an image."""
    return {index.digest(c): size for c, size in enumerate(index.stored_sizes)}


def read_sharing(backend: Backend, image: bytes, index: ChunkIndex) -> Sharing:
    """Return what ``image``, the raw digest of ``index``, shares with the others of a store.

    An image that is forgotten meanwhile is left out.

    Raises:
        IntegrityError: another image's chunk index is damaged.
        FormatError: a file below ``manifests/`` is none.

    """
    own = stored_chunks(index)
    shared: set[bytes] = set()
    found: dict[bytes, Overlap] = {}
    for name in list(backend.iter_names(MANIFESTS)):
        other = _image_of(name)
        if other == image:
            continue
        try:
            held = _read_index(backend, other)
        except PackNotFound:
            continue
        common = {held.digest(c) for c in range(held.chunk_count)} & own.keys()
        shared |= common
        found[other] = Overlap(len(common), sum(own[digest] for digest in common))
    return Sharing(
        Overlap(len(shared), sum(own[digest] for digest in shared)),
        dict(sorted(found.items(), key=lambda item: (-item[1].stored, item[0]))),
    )


def check_listable(url: str) -> None:
    """Return when the store at ``url`` may be one that says what it holds.

    Raises:
        UsageError: it is a web server, which does not.

    """
    if url.partition("://")[0].lower() in ("http", "https"):
        raise UsageError(
            f"{shown(url)}: a web server does not say what a store holds; "
            "give the directory it serves"
        )


def _image_of(name: str) -> bytes:
    try:
        return bytes.fromhex(name.removeprefix(MANIFESTS))
    except ValueError:
        raise FormatError(name, 0, "not the name of a manifest; remove the file") from None


def _read_index(backend: Backend, image: bytes) -> ChunkIndex:
    name = chunk_index_name(image)
    where = f"{backend.location}/{name}"
    encoded = backend.fetch(name, 0, backend.size(name))
    try:
        check_digest(encoded, image, where)
        return parse_chunk_index(encoded)
    except (FormatError, IntegrityError) as error:
        raise IntegrityError(
            f"{where}: {error}; bootfs check --store {backend.location} says what is damaged"
        ) from None
