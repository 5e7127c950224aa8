"""Image records: which chunks the contents of some layers became, and by which cuts.

A *stream* (converter/order.py) is cut into the same chunks whatever image it is in.  So it is
known by what it is made of: runs of the plain tars of layers, which their diff ids name.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct

from blake3 import blake3

from converter.chunker import CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN
from converter.order import Region, Stream
from converter.records.recordfile import RecordFile, write_record
from converter.tree import Node
from store.errors import FormatError
from store.format.chunkindex import BLOCK, HOLE, ChunkIndex
from store.format.digest import DIGEST_SIZE

MAGIC = b"bootfsI1"
_CUTS = b"fastcdc 1 %d/%d/%d block %d" % (CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX, BLOCK)
"""What else decides the chunks of a stream; to be changed with what it stands for."""
_RUN = Struct("<32sQQQ")
_FILE = Struct("<QQ")
_COUNTS = Struct("<QQQQ")


def name_streams(streams: Sequence[Stream], diff_ids: Sequence[str]) -> list[bytes]:
    """Return a digest of what each stream is made of; ``diff_ids`` are of the image's layers."""
    layers = [bytes.fromhex(diff_id.partition(":")[2]) for diff_id in diff_ids]
    names = []
    for stream in streams:
        parts = [_CUTS]
        for file in stream.files:
            layer = layers[file.layer]
            segments = file.content.segments
            parts.append(_FILE.pack(file.content.size, len(segments)))
            parts += [_RUN.pack(layer, run.blob_offset, run.offset, run.size) for run in segments]
        names.append(blake3(b"".join(parts)).digest())
    return names


def write_image_record(
    path: Path, diff_ids: Sequence[str], region: Region, names: Sequence[bytes], index: ChunkIndex
) -> None:
    """Record what an image's contents became; ``names`` are those of the region's streams.

    Raises:
        OSError: the record cannot be written.

    """
    starts: array[int] = array("Q", [stream.start for stream in region.streams])
    columns = _runs_of(region, diff_ids)
    body = [
        _COUNTS.pack(len(names), len(index.place_chunks), index.chunk_count, len(columns[0])),
        *names,
        starts.tobytes(),
        index.starts.tobytes(),
        index.place_chunks.tobytes(),
        index.digests,
        *(column.tobytes() for column in columns),
    ]
    write_record(path, MAGIC, "\n".join(diff_ids).encode(), map(bytes, body))


def _runs_of(region: Region, diff_ids: Sequence[str]) -> list[array[int]]:
    """Return layer, offset in its plain tar, size and place in the region of all runs, sorted."""
    # A layer that an image has twice is known by the first.
    layers = [diff_ids.index(diff_id) for diff_id in diff_ids]
    columns: list[array[int]] = [array("Q") for _ in range(4)]
    for file, start in region.extents.items():
        for run in file.content.segments:
            numbers = (layers[file.layer], run.blob_offset, run.size, start + run.offset)
            for column, number in zip(columns, numbers, strict=True):
                column.append(number)
    # Twice by a number, not once by pairs: these would take most memory of all.
    order = sorted(range(len(columns[0])), key=columns[1].__getitem__)
    order.sort(key=columns[0].__getitem__)
    return [array("Q", map(column.__getitem__, order)) for column in columns]


def read_layers(path: Path) -> list[str]:
    """Return the diff ids of the layers that a record is of, not verified.

    Raises:
        OSError: there is no record, or it cannot be read.
        FormatError: it is none of this release.

    """
    file = RecordFile(path, MAGIC)
    file.close()
    return file.head.decode("ascii", "replace").split("\n")


class ImageRecord:
    """A record that was read whole and verified."""

    def __init__(self, path: Path) -> None:
        """Read the record at ``path``.

        Raises:
            OSError: there is no record, or it cannot be read.
            FormatError: it is damaged.

        """
        file = RecordFile(path, MAGIC)
        try:
            file.check()
            body = b"".join(file.iter_body())
        finally:
            file.close()
        self.diff_ids = file.head.decode("ascii", "replace").split("\n")
        try:
            self._parse(body)
        except (ValueError, IndexError) as error:
            raise FormatError(str(path), 0, f"{error}; the record is not used") from error

    def _parse(self, body: bytes) -> None:
        if len(body) < _COUNTS.size:
            raise ValueError("cut short")
        streams, places, chunks, runs = _COUNTS.unpack_from(body)
        view = memoryview(body)
        at = _COUNTS.size

        def take(size: int) -> memoryview:
            nonlocal at
            if at + size > len(view):
                raise ValueError("cut short")
            at += size
            return view[at - size : at]

        names = bytes(take(streams * DIGEST_SIZE))
        self._streams = {
            names[DIGEST_SIZE * number : DIGEST_SIZE * (number + 1)]: number
            for number in range(streams)
        }
        self._stream_starts = array("Q", bytes(take(8 * streams)))
        self.starts = array("Q", bytes(take(8 * (places + 1))))
        self.place_chunks = array("I", bytes(take(4 * places)))
        self.digests = bytes(take(DIGEST_SIZE * chunks))
        columns = [array("Q", bytes(take(8 * runs))) for _ in range(4)]
        if at != len(view) or any(c != HOLE and c >= chunks for c in self.place_chunks):
            raise ValueError("its numbers do not fit")
        self._run_layers, self._run_offsets, self._run_sizes, self._run_places = columns
        self._layer_runs = [
            bisect_right(self._run_layers, number) for number in range(-1, len(self.diff_ids))
        ]

    def digest(self, chunk: int) -> bytes:
        """Return the raw digest of a chunk, by its number here."""
        return self.digests[DIGEST_SIZE * chunk : DIGEST_SIZE * (chunk + 1)]

    def places_of(self, name: bytes, size: int) -> range | None:
        """Return the places of a stream of ``size`` bytes, which they tile; None if unknown."""
        number = self._streams.get(name)
        if number is None:
            return None
        start = self._stream_starts[number]
        first = bisect_right(self.starts, start) - 1
        last = bisect_right(self.starts, start + size) - 1
        if last < 0 or (self.starts[first], self.starts[last]) != (start, start + size):
            return None
        return range(first, last)

    def iter_pieces(self, places: range) -> Iterator[tuple[int, bytes | None]]:
        """Yield size and digest of the chunk at each place, of a hole None."""
        for place in places:
            chunk = self.place_chunks[place]
            size = self.starts[place + 1] - self.starts[place]
            yield size, None if chunk == HOLE else self.digest(chunk)

    def chunks_of(self, diff_id: str, offset: int, size: int) -> tuple[int, list[int]] | None:
        """Return where a range of a layer begins in the first of its chunks, and these.

        None where the record does not know that.
        """
        if diff_id not in self.diff_ids:
            return None
        layer = self.diff_ids.index(diff_id)
        low, high = self._layer_runs[layer], self._layer_runs[layer + 1]
        run = bisect_right(self._run_offsets, offset, low, high) - 1
        if run < low:
            return None
        skipped = offset - self._run_offsets[run]
        if skipped + size > self._run_sizes[run]:
            return None
        at = self._run_places[run] + skipped
        first = bisect_right(self.starts, at) - 1
        last = bisect_right(self.starts, at + size - 1) - 1
        chunks = list(self.place_chunks[first : last + 1])
        if len(chunks) != last + 1 - first or HOLE in chunks:
            return None
        return at - self.starts[first], chunks

    def plain_sizes(self) -> array[int]:
        """Return the plain size of each chunk."""
        sizes: array[int] = array("I", bytes(4 * (len(self.digests) // DIGEST_SIZE)))
        for place, chunk in enumerate(self.place_chunks):
            if chunk != HOLE:
                sizes[chunk] = self.starts[place + 1] - self.starts[place]
        return sizes


def contents_of(stream: Stream) -> Iterator[tuple[Node, int, int]]:
    """Yield node, offset in its layer's plain tar and size of each run of a stream's bytes."""
    for file in stream.files:
        for run in file.content.segments:
            yield file, run.blob_offset, run.size
