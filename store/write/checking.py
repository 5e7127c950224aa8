"""Verify a whole store: every object against its name, and the objects against one another.

Bounded: some megabytes for each thread, and of packs' entries only those of the packs
that are being read.
"""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from store.errors import (
    BootfsError,
    DigestMismatch,
    FormatError,
    IntegrityError,
    PackNotFound,
    UnsupportedVersion,
)
from store.format.chunkindex import ChunkIndex, parse_chunk_index
from store.format.digest import check_digest
from store.format.names import (
    STORE_MARK,
    bootstrap_name,
    chunk_index_name,
    hot_pack_name,
    manifest_name,
    pack_name,
    profiles_name,
)
from store.format.packfile import HEADER, PackEntry, parse_header
from store.interfaces import Listing, Objects
from store.read.body import plain_of
from store.write.catalogue import read_table
from store.write.manifest import parse_manifest
from store.write.profilestore import read_profiles
from store.write.roots import Packs, check_is_store
from store.write.tracestore import image_of_trace

PIECE = 4 << 20
"""Bytes read at once: larger than any chunk, small enough for every thread to have."""
READERS = 8
"""Threads at most: with more, memory and not the disk would be full."""

KINDS = ("packs", "indexes", "bootstraps", "manifests", "profiles", "hot")
OPTIONAL = ("profiles", "hot")
"""Kinds that only cost time where they are missing."""
_NAME = re.compile(
    r"(?P<kind>packs)/([0-9a-f]{2})/(?P<pack>\2[0-9a-f]{62})"
    r"|(?P<other>indexes|bootstraps|manifests|profiles|hot)/(?P<image>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One object that is damaged or missing, or a file that is no object."""

    name: str
    what: str
    is_fetchable: bool = True
    """Whether another store may have the object whole."""

    def __str__(self) -> str:
        return self.what if self.name in self.what else f"{self.name}: {self.what}"


def parse_name(name: str) -> tuple[str, bytes] | None:
    """Return kind (one of `KINDS`) and raw digest of an object, None where there can be none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return (
        match["kind"] or match["other"],
        bytes.fromhex(match["pack"] or match["image"]),
    )


@dataclass(slots=True)
class Inventory:
    """The raw digests that name a store's objects, by kind, sorted."""

    objects: dict[str, list[bytes]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    other: list[str] = field(default_factory=list)
    """Files whose names are no object's."""


def list_store(backend: Listing) -> Inventory:
    """Return what a store holds.

    Raises:
        NotFound, UsageError, AccessDenied: as `check_is_store`.

    """
    check_is_store(backend)
    found = Inventory()
    for name in backend.iter_names(""):
        parsed = parse_name(name)
        if parsed is not None:
            found.objects[parsed[0]].append(parsed[1])
        elif name != STORE_MARK and image_of_trace(name) is None:
            found.other.append(name)
    return found


def iter_checked_frames(
    index: ChunkIndex, fetch: Callable[[int, int], bytes], where: str
) -> Iterator[bytes]:
    """Yield the stored frames of a bootstrap file, each verified; ``fetch`` takes offset and size.

    Raises:
        DigestMismatch: a frame is damaged.

    """
    for number, digest in enumerate(index.frame_digests):
        start, end = index.frame_starts[number], index.frame_starts[number + 1]
        frame = fetch(start, end - start)
        check_digest(frame, digest, f"{where}, frame {number}")
        yield frame


def read_index(backend: Objects, image: bytes) -> ChunkIndex:
    """Return a chunk index, verified.

    Raises:
        PackNotFound, DigestMismatch, FormatError: it is missing or damaged.

    """
    name = chunk_index_name(image)
    encoded = backend.fetch(name, 0, backend.size(name))
    check_digest(encoded, image, name)
    return parse_chunk_index(encoded)


class StoreCheck:
    """A check of one store, from one thread; it starts others itself.

    It may be done again after a repair: packs that were found whole are not read again.
    """

    def __init__(self, backend: Listing) -> None:
        self._backend = backend
        self._whole: set[bytes] = set()
        self._told: set[str] = set()
        self.inventory = Inventory()
        """What the store had at the last `take_stock`."""

    def take_stock(self) -> int:
        """Look what there is; return the bytes of packs that `iter_problems` will read.

        Raises:
            NotFound, UsageError, AccessDenied: as `list_store`.

        """
        self.inventory = list_store(self._backend)
        return sum(self._size(digest) for digest in self.inventory.objects["packs"])

    def _size(self, pack: bytes) -> int:
        try:
            return 0 if pack in self._whole else self._backend.size(pack_name(pack))
        except PackNotFound:
            return 0  # collected since

    def iter_problems(self, advance: Callable[[int], None]) -> Iterator[Problem]:
        """Yield what is wrong with what was listed, each object once; packs first.

        ``advance`` is told bytes of packs as they are done.
        """
        self._told.clear()
        for problem in self._iter_all(advance):
            if problem.name not in self._told:
                self._told.add(problem.name)
                yield problem

    def _iter_all(self, advance: Callable[[int], None]) -> Iterator[Problem]:
        for name in self.inventory.other:
            yield Problem(name, "not the name of an object; remove the file", is_fetchable=False)
        yield from self._iter_damaged_packs(advance)
        for image in self.inventory.objects["indexes"]:
            yield from self._try(chunk_index_name(image), self._check_index, image)
        for image in self.inventory.objects["bootstraps"]:
            # What no chunk index describes is what a killed conversion or collection left.
            name = chunk_index_name(image)
            if self._backend.has(name) and name not in self._told:
                yield from self._try(bootstrap_name(image), self._check_bootstrap, image)
        for image in self.inventory.objects["manifests"]:
            yield from self._iter_image(image)
        for digest in self.inventory.objects["hot"]:
            yield from self._try(hot_pack_name(digest), self._check_hot_pack, digest)
        for image in self.inventory.objects["profiles"]:
            yield from self._iter_profiles(image)

    def _iter_damaged_packs(self, advance: Callable[[int], None]) -> Iterator[Problem]:
        packs = [pack for pack in self.inventory.objects["packs"] if pack not in self._whole]
        pool = ThreadPoolExecutor(min(READERS, os.cpu_count() or 1))
        try:
            for pack, problems in zip(packs, pool.map(self._checked_pack, packs), strict=True):
                advance(self._size(pack))
                yield from problems
                if not problems:
                    self._whole.add(pack)
        finally:
            pool.shutdown(cancel_futures=True)

    def _checked_pack(self, pack: bytes) -> list[Problem]:
        return list(self._try(pack_name(pack), self._check_pack, pack))

    def _try(self, name: str, check: Callable[[bytes], object], digest: bytes) -> Iterator[Problem]:
        try:
            check(digest)
        except PackNotFound:
            # Collected since it was listed; who needs it will miss it.
            return
        except BootfsError as error:
            yield Problem(name, str(error))

    def _check_pack(self, pack: bytes) -> None:
        name = pack_name(pack)
        size, entries = read_table(self._backend, pack)
        header = self._backend.fetch(name, 0, HEADER.size)
        parse_header(header)
        hashed = hashlib.sha256(header)
        at = HEADER.size
        for batch in _batches(entries):
            stored = memoryview(
                self._backend.fetch(name, at, sum(entry.stored_size for entry in batch))
            )
            hashed.update(stored)
            for entry in batch:
                body = stored[entry.offset - at :][: entry.stored_size]
                plain_of(body, entry.plain_size, entry.digest, f"{name} from {entry.offset}")
            at += len(stored)
        for start in range(at, size, PIECE):
            hashed.update(self._backend.fetch(name, start, min(PIECE, size - start)))
        if hashed.digest() != pack:
            raise DigestMismatch(name, f"sha256:{pack.hex()}", f"sha256:{hashed.hexdigest()}")

    def _check_hot_pack(self, digest: bytes) -> None:
        name = hot_pack_name(digest)
        hashed = hashlib.sha256()
        size = self._backend.size(name)
        for start in range(0, size, PIECE):
            hashed.update(self._backend.fetch(name, start, min(PIECE, size - start)))
        if hashed.digest() != digest:
            raise DigestMismatch(name, f"sha256:{digest.hex()}", f"sha256:{hashed.hexdigest()}")

    def _iter_profiles(self, image: bytes) -> Iterator[Problem]:
        """Yield what is wrong with the profiles of an image, and which hot packs they lack."""
        name = profiles_name(image)
        try:
            profiles = read_profiles(self._backend, image)
        except (UnsupportedVersion, IntegrityError) as error:
            is_damage = not isinstance(error, UnsupportedVersion)
            yield Problem(name, str(error), is_fetchable=is_damage)
            return
        for one in profiles:
            hot_pack = hot_pack_name(one.hot_pack)
            if one.hot_pack_size and not self._backend.has(hot_pack) and self._backend.has(name):
                yield Problem(
                    hot_pack,
                    f"missing, and profile {one.name!r} of {name} needs it: starts are slower; "
                    "bootfs profile add makes it again",
                )

    def _check_index(self, image: bytes) -> None:
        read_index(self._backend, image)

    def _check_bootstrap(self, image: bytes) -> None:
        name = bootstrap_name(image)
        index = read_index(self._backend, image)
        size = self._backend.size(name)
        if size != index.frame_starts[-1]:
            raise FormatError(
                name, 0, f"{size} bytes, in the chunk index {index.frame_starts[-1]}; it is damaged"
            )
        frames = iter_checked_frames(index, lambda o, s: self._backend.fetch(name, o, s), name)
        for _ in frames:
            pass

    def _iter_image(self, image: bytes) -> Iterator[Problem]:
        """Yield what is wrong with a manifest, and what its image lacks.

        A chunk index that is whole is believed before the manifest, which no digest covers.
        """
        name = manifest_name(image)
        packs: Packs = []
        named = b""
        try:
            named, packs = parse_manifest(self._backend.fetch(name, 0, self._backend.size(name)))
        except PackNotFound:
            return  # forgotten since it was listed
        except BootfsError as error:
            # What a later release wrote is not to be replaced; all else has its digest for a name.
            is_damage = not isinstance(error, UnsupportedVersion)
            yield Problem(name, f"{name}: {error}", is_fetchable=is_damage)
            if not is_damage:
                return
        index_name = chunk_index_name(image)
        yield from self._iter_missing(name, [index_name, bootstrap_name(image)])
        index = None
        if index_name not in self._told and self._backend.has(index_name):
            index = read_index(self._backend, image)
            right = list(zip(index.pack_digests, index.pack_sizes, strict=True))
            if (named, packs) != (image, right):
                yield Problem(name, "does not say what its chunk index says; the copy is damaged")
            packs = right
        yield from self._iter_missing(name, [pack_name(pack) for pack, _ in packs])
        if index is not None:
            for what in self._iter_misplaced(index):
                yield Problem(index_name, what, is_fetchable=False)

    def _iter_missing(self, manifest: str, names: Iterable[str]) -> Iterator[Problem]:
        for name in names:
            # Unless the image was forgotten and collected since it was listed.
            if not self._backend.has(name) and self._backend.has(manifest):
                yield Problem(name, f"missing, and {manifest} needs it")

    def _iter_misplaced(self, index: ChunkIndex) -> Iterator[str]:
        """Yield for each pack that is whole the first chunk that is not where ``index`` says."""
        chunks = [array("I") for _ in index.pack_digests]
        for chunk, number in enumerate(index.packs):
            chunks[number].append(chunk)
        for number, pack in enumerate(index.pack_digests):
            if pack not in self._whole or pack_name(pack) in self._told:
                continue
            size, entries = read_table(self._backend, pack)
            if size != index.pack_sizes[number]:
                stated = index.pack_sizes[number]
                yield f"says {stated} bytes of {pack_name(pack)}, which has {size}; convert again"
                continue
            places = {entry.offset: entry for entry in entries}
            for chunk in chunks[number]:
                wanted = PackEntry(
                    index.digest(chunk),
                    index.offsets[chunk],
                    index.stored_sizes[chunk],
                    index.plain_sizes[chunk],
                )
                if places.get(wanted.offset) != wanted:
                    yield f"chunk {chunk} is not where it says in {pack_name(pack)}; convert again"
                    break


def _batches(entries: list[PackEntry]) -> Iterator[list[PackEntry]]:
    """Yield the entries in their order, together as many as are `PIECE` bytes at most."""
    batch: list[PackEntry] = []
    size = 0
    for entry in entries:
        if batch and size + entry.stored_size > PIECE:
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.stored_size
    if batch:
        yield batch
