"""What the images of a store need: all that a collection must leave.

A store manifest is a root, and the only kind there is.  It names packs; chunk index
and bootstrap go by the manifest's own name.
"""

from __future__ import annotations

import re

from store.errors import BootfsError, FormatError, IntegrityError, NotFound, PackNotFound
from store.format.chunkindex import parse_chunk_index
from store.format.digest import check_digest
from store.format.names import (
    STORE_MARK,
    bootstrap_name,
    chunk_index_name,
    manifest_name,
    pack_name,
)
from store.interfaces import Backend, Listing, Objects
from store.write.manifest import encode_manifest, parse_manifest

MANIFESTS = "manifests/"
_BASE = re.compile(r"[0-9a-f]{64}")

Packs = list[tuple[bytes, int]]
"""Raw digest and size of each, in the chunk index's order."""


def check_is_store(backend: Listing) -> None:
    """Return when a store is there, and not only a place where one could be made.

    Raises:
        NotFound: there is none.
        UsageError, AccessDenied: as `Backend.check`.

    """
    backend.check()
    if not backend.has(STORE_MARK):
        raise NotFound(f"{backend.location}: there is no bootfs store; give the address of one")


def read_named_packs(backend: Backend) -> set[bytes]:
    """Return the raw digests of all packs that a manifest names.

    For a writer, who at worst makes a pack young that needs it not: manifests that
    cannot be read name nothing here.
    """
    named: set[bytes] = set()
    for name in backend.iter_names(MANIFESTS):
        try:
            _, packs = parse_manifest(backend.fetch(name, 0, backend.size(name)))
        except BootfsError:
            continue
        named.update(digest for digest, _ in packs)
    return named


def needed_names(image: bytes, packs: Packs) -> set[str]:
    """Return the names of all that an image needs: its manifest, and what that names."""
    names = {pack_name(digest) for digest, _ in packs}
    return names | {manifest_name(image), chunk_index_name(image), bootstrap_name(image)}


def commit(backend: Backend, image: bytes, packs: Packs) -> None:
    """Write the manifest of an image, all of whose objects have been written or found.

    What it names is there, and stays: collections wait meanwhile, and see the manifest
    afterwards.

    Raises:
        PackNotFound: a collection took something that was found or written; there is
            no manifest, and another conversion stores it again.
        StorageFull, AccessDenied: as `Backend.replace`.

    """
    with backend.hold(alone=False):
        for name in sorted(needed_names(image, packs) - {manifest_name(image)}):
            if not backend.has(name):
                raise PackNotFound(
                    f"{backend.location}/{name}: collected while it was needed; "
                    "convert again, and collect with a longer --grace"
                )
        # By another conversion of the same image, then: a root needs not be made young.
        if not backend.has(manifest_name(image)):
            backend.replace(manifest_name(image), iter((encode_manifest(image, packs),)))


class Roots:
    """The images of a store; what is read once is not read again."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.images: dict[bytes, Packs] = {}
        """Raw digest of the chunk index to the packs of the image."""

    def read(self) -> None:
        """Bring ``images`` to what the store has now.

        Raises:
            IntegrityError: an image's manifest or chunk index is damaged or missing, so
                that nobody can say what it needs.
            FormatError: a file below ``manifests/`` is none.

        """
        there = {}
        for name in self._backend.iter_names(MANIFESTS):
            base = name.removeprefix(MANIFESTS)
            if not _BASE.fullmatch(base):
                raise FormatError(name, 0, "not the name of a manifest; remove the file")
            image = bytes.fromhex(base)
            there[image] = self.images.get(image) or self._read_packs(image)
        self.images = there

    def needed(self) -> set[str]:
        """Return the names of all that the images need, as last read."""
        names: set[str] = set()
        for image, packs in self.images.items():
            names |= needed_names(image, packs)
        return names

    def _read_packs(self, image: bytes) -> Packs:
        try:
            return read_packs(self._backend, image)
        except (FormatError, IntegrityError, PackNotFound) as error:
            where = self._backend.location
            raise IntegrityError(
                f"{where}/{manifest_name(image)}: what the image needs cannot be told: {error}; "
                f"bootfs check --store {where} --repair URL gets it again, "
                f"bootfs forget {where} blake3:{image.hex()} gives it up"
            ) from None


def read_packs(backend: Objects, image: bytes) -> Packs:
    """Return the packs of an image: what manifest and chunk index both say.

    Raises:
        PackNotFound: manifest or chunk index does not exist.
        FormatError, IntegrityError: one of them is damaged, or they do not agree.

    """
    name = manifest_name(image)
    named, packs = parse_manifest(backend.fetch(name, 0, backend.size(name)))
    index_name = chunk_index_name(image)
    encoded = backend.fetch(index_name, 0, backend.size(index_name))
    check_digest(encoded, image, index_name)
    index = parse_chunk_index(encoded)
    if named != image or packs != list(zip(index.pack_digests, index.pack_sizes, strict=True)):
        raise FormatError(name, 0, "does not say what the chunk index of its name says")
    return packs
