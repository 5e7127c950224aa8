"""Bytes of layers that were converted before, from the chunks that they became."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from converter.records.imagerecord import ImageRecord
from store.errors import FormatError, IntegrityError, NotFound
from store.format.chunkindex import ChunkIndex
from store.interfaces import Backend
from store.read.fetch import ChunkReader
from store.write.catalogue import Catalogue


class StoredContents:
    """Ranges of layers' plain tars, as far as records know their chunks and a store has these."""

    def __init__(
        self,
        images: Sequence[ImageRecord],
        backend: Backend,
        catalogue: Catalogue,
        is_stored: Callable[[bytes], bool],
        report: Callable[[str], None],
    ) -> None:
        """Read from ``backend`` what ``catalogue`` says; ``report`` is told of damage there."""
        self._images = images
        self._is_stored = is_stored
        self._report = report
        self._backend = backend
        self._catalogue = catalogue
        self._readers: dict[int, ChunkReader] = {}

    def has(self, diff_id: str, offset: int, size: int) -> bool:
        """Whether a range of a layer can be read."""
        return self._find(diff_id, offset, size) is not None

    def read(self, diff_id: str, offset: int, size: int) -> bytes | None:
        """Return a range of a layer, verified; None where it cannot be had unharmed.

        Raises:
            AccessDenied, RemoteError: the store does not answer as it should.

        """
        found = self._find(diff_id, offset, size)
        if found is None:
            return None
        number, skipped, chunks = found
        try:
            plain = self._reader(number).read(sorted(set(chunks)))
        except (FormatError, IntegrityError, NotFound) as error:
            self._report(f"{error}; the source is read instead")
            return None
        data = b"".join(plain[chunk] for chunk in chunks)
        return data[skipped : skipped + size]

    def _find(self, diff_id: str, offset: int, size: int) -> tuple[int, int, list[int]] | None:
        """Return the number of a record, how far into its first chunk the range begins, chunks."""
        for number, image in enumerate(self._images):
            found = image.chunks_of(diff_id, offset, size)
            if found and all(self._is_stored(image.digest(chunk)) for chunk in found[1]):
                return number, *found
        return None

    def _reader(self, number: int) -> ChunkReader:
        if number not in self._readers:
            index = _index_of(self._images[number], self._catalogue)
            self._readers[number] = ChunkReader(index, self._backend, None, self._report)
        return self._readers[number]

    def close(self) -> None:
        """Wait for fetches that nobody waited for."""
        for reader in self._readers.values():
            reader.wait_until_landed()


def _index_of(image: ImageRecord, catalogue: Catalogue) -> ChunkIndex:
    """Return where this store has the chunks of a record; those it has not are in no pack."""
    index = ChunkIndex()
    index.digests = image.digests
    index.plain_sizes = image.plain_sizes()
    index.pack_digests = [digest for digest, _ in catalogue.packs]
    nowhere = len(index.pack_digests)
    packs, offsets, stored_sizes = array("I"), array("Q"), array("I")
    for chunk in range(index.chunk_count):
        place = catalogue.places.get(image.digest(chunk))
        packs.append(nowhere if place is None else place[0])
        offsets.append(0 if place is None else place[1].offset)
        stored_sizes.append(0 if place is None else place[1].stored_size)
    index.packs, index.offsets, index.stored_sizes = packs, offsets, stored_sizes
    return index
