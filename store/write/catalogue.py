"""What a store already holds: the tables of all its packs, read from their tails."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from store.errors import FormatError, PackNotFound
from store.format.names import pack_name
from store.format.packfile import (
    FOOTER,
    WITH_FILTERED,
    PackEntry,
    parse_footer,
    parse_table,
    version_of,
)
from store.interfaces import Backend, Objects
from store.write.roots import read_named_packs

_PACK_BASE = re.compile(r"[0-9a-f]{64}")


class Catalogue:
    """Chunk digest to place in a pack, for every chunk of a store."""

    def __init__(self) -> None:
        self.packs: list[tuple[bytes, int]] = []
        """Raw SHA-256 digest and size of each pack, sorted by digest."""
        self.places: dict[bytes, tuple[int, PackEntry]] = {}
        """Chunk digest to the number of a pack in ``packs`` and the entry there."""
        self.with_filtered: set[int] = set()
        """Numbers of packs with filtered bodies."""
        self.unnamed: set[int] = set()
        """Numbers of packs that no manifest names: a collection may take them."""


def read_table(backend: Objects, digest: bytes) -> tuple[int, list[PackEntry]]:
    """Return size and entries of a pack.

    Raises:
        FormatError: the pack is damaged; the message names it.

    """
    return _read_tail(backend, digest)[:2]


def _read_tail(backend: Objects, digest: bytes) -> tuple[int, list[PackEntry], int]:
    """Return what `read_table` does, and the pack's version."""
    name = pack_name(digest)
    size = backend.size(name)
    footer_at = size - FOOTER.size
    if footer_at < 0:
        raise FormatError(name, 0, f"{size} bytes are too few for a pack")
    try:
        footer = backend.fetch(name, footer_at, FOOTER.size)
        table_at, table_size, table_digest = parse_footer(footer, size)
        table = backend.fetch(name, table_at, table_size)
        return size, parse_table(table, table_digest, table_at), version_of(footer)
    except FormatError as error:
        problem = (
            f"{error.problem}; get it again with bootfs check --store {backend.location} "
            "--repair URL, or remove it and convert the images that need it again"
        )
        raise type(error)(f"{backend.location}/{name}", error.offset, problem) from None


def _read_tail_if_there(backend: Backend, digest: bytes) -> tuple[int, list[PackEntry], int] | None:
    """Return what `_read_tail` does, and None where a collection has just taken the pack."""
    try:
        return _read_tail(backend, digest)
    except PackNotFound:
        return None


def read_catalogue(backend: Backend) -> Catalogue:
    """Return the catalogue of a store.

    Where two packs hold a chunk, the pack whose digest sorts first is named, so
    that the answer does not depend on the order of listing.

    Raises:
        FormatError: a pack is damaged; the message names it.

    """
    digests = []
    for name in backend.iter_names("packs/"):
        base = name.rpartition("/")[2]
        if not _PACK_BASE.fullmatch(base) or name != pack_name(bytes.fromhex(base)):
            raise FormatError(name, 0, "not the name of a pack; remove the file from the store")
        digests.append(bytes.fromhex(base))
    catalogue = Catalogue()
    named = read_named_packs(backend)
    with ThreadPoolExecutor(8) as pool:
        for digest, found in zip(
            digests, pool.map(lambda d: _read_tail_if_there(backend, d), digests), strict=True
        ):
            if found is None:
                continue
            size, entries, version = found
            number = len(catalogue.packs)
            if version == WITH_FILTERED:
                catalogue.with_filtered.add(number)
            if digest not in named:
                catalogue.unnamed.add(number)
            catalogue.packs.append((digest, size))
            for entry in entries:
                catalogue.places.setdefault(entry.digest, (number, entry))
    return catalogue
