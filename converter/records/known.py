"""What records know of one image: its layers' trees, and what its contents became.

What is known is not fetched, decompressed, hashed and cut again.  What turns out to be
missing is read from the source after all, verified as ever.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from converter.images.view import LayerSource
from converter.order import Region, Stream
from converter.plainlayer import read_layer
from converter.records.directory import Records
from converter.records.imagerecord import ImageRecord, contents_of, name_streams
from converter.records.layerrecord import RecordedLayer
from converter.records.storedcontents import StoredContents
from converter.spool import FileBlob, Spool
from store.format.chunkindex import ChunkIndex
from store.interfaces import Backend
from store.write.catalogue import Catalogue

Place = tuple[ImageRecord, range]
"""A record, and the places in it that are a stream; see `ImageRecord.iter_pieces`."""

_WORTH = 4
"""Where more of a layer than this part of its stored bytes is wanted, it is read whole."""


class Known:
    """The records that matter to one image; without a directory of them nothing is known."""

    def __init__(
        self,
        records: Records | None,
        layers: Sequence[LayerSource],
        spool: Spool,
        *,
        read_all: bool = False,
    ) -> None:
        """Open the records of ``layers``, into ``spool``, as long as which they can be read.

        With ``read_all`` nothing is known, and all is recorded anew.
        """
        self._records = records
        self._is_used = records is not None and not read_all
        self._diff_ids = [layer.diff_id for layer in layers]
        self._names: list[bytes] = []
        self._stored: StoredContents | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="late-layer")
        self._contents: dict[str, _Contents] = {}
        self.layers: dict[str, RecordedLayer] = {}
        """Those that need not be read, by diff id."""
        self.bytes = 0
        """Plain bytes that were not cut again."""
        spool.end_first(self._close)
        if records is None or read_all:
            return
        for layer in layers:
            if layer.diff_id in self.layers:
                continue
            contents = _Contents(layer, spool, self._pool)
            found = records.open_layer(layer.diff_id, spool, contents.read)
            if found is not None:
                self.layers[layer.diff_id] = found
                self._contents[layer.diff_id] = contents

    @property
    def unread(self) -> int:
        """Number of the image's layers whose bytes were not needed, as far as one knows now."""
        return sum(
            diff_id in self._contents and not self._contents[diff_id].is_read
            for diff_id in self._diff_ids
        )

    def keep_layer(self, diff_id: str, plain: FileBlob, runs: array[int]) -> None:
        """Record a layer that was read and verified; see `Records.keep_layer`."""
        if self._records is not None:
            self._records.keep_layer(diff_id, plain, runs)

    def keep_image(self, region: Region, index: ChunkIndex) -> None:
        """Record what the contents of the image became."""
        if self._records is not None:
            names = self._names or name_streams(region.streams, self._diff_ids)
            self._records.keep_image(self._diff_ids, region, names, index)

    def find_places(
        self,
        region: Region,
        backend: Backend,
        catalogue: Catalogue,
        is_stored: Callable[[bytes], bool],
    ) -> list[Place | None]:
        """Return of each stream where a record has its chunks, if the store has all of them.

        For the others it is settled where their bytes will come from.
        """
        if self._records is None or not self._is_used:
            return [None] * len(region.streams)
        self._names = name_streams(region.streams, self._diff_ids)
        images = self._records.find_images(self._diff_ids)
        found = [
            _place_of(stream, name, images, is_stored)
            for stream, name in zip(region.streams, self._names, strict=True)
        ]
        self._stored = StoredContents(images, backend, catalogue, is_stored, self._records.report)
        unknown = []
        for stream, place in zip(region.streams, found, strict=True):
            if place is None:
                unknown.append(stream)
            else:
                self.bytes += stream.size
        self._settle(unknown, self._stored)
        return found

    def _settle(self, unknown: list[Stream], stored: StoredContents) -> None:
        """Have those layers read of which the store has not all that is wanted, or much is."""
        wanted = dict.fromkeys(self._contents, 0)
        for stream in unknown:
            for file, offset, size in contents_of(stream):
                diff_id = self._diff_ids[file.layer]
                contents = self._contents.get(diff_id)
                if contents is None or contents.is_read:
                    continue
                wanted[diff_id] += size
                much = wanted[diff_id] > contents.layer.size // _WORTH
                if much or not stored.has(diff_id, offset, size):
                    contents.begin()
        for diff_id, contents in self._contents.items():
            contents.read_stored = partial(stored.read, diff_id)

    def _close(self) -> None:
        for contents in self._contents.values():
            contents.layer.stored.abandon()
        self._pool.shutdown(cancel_futures=True)
        if self._stored is not None:
            self._stored.close()


class _Contents:
    """The files' contents of a recorded layer, from a store or from the layer itself."""

    def __init__(self, layer: LayerSource, spool: Spool, pool: ThreadPoolExecutor) -> None:
        self.layer = layer
        self._spool = spool
        self._pool = pool
        self._plain: Future[FileBlob] | None = None
        self.read_stored: Callable[[int, int], bytes | None] = lambda _offset, _size: None

    @property
    def is_read(self) -> bool:
        """Whether the layer itself is read."""
        return self._plain is not None

    def begin(self) -> Future[FileBlob]:
        """Begin to read the layer itself, as `read_layer` does."""
        if self._plain is None:
            self.layer.stored.want()
            self._plain = self._pool.submit(read_layer, self.layer, self._spool)
        return self._plain

    def read(self, offset: int, size: int) -> bytes:
        """Return contents by their place in the layer's plain tar; for one thread.

        Raises:
            BootfsError: they cannot be had.

        """
        if self._plain is None:
            data = self.read_stored(offset, size)
            if data is not None:
                return data
        return self.begin().result().pread(offset, size)


def _place_of(
    stream: Stream, name: bytes, images: list[ImageRecord], is_stored: Callable[[bytes], bool]
) -> Place | None:
    for image in images:
        places = image.places_of(name, stream.size)
        if places is not None and all(
            digest is None or is_stored(digest) for _, digest in image.iter_pieces(places)
        ):
            return image, places
    return None
