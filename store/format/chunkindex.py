"""The chunk index: place in the data region -> chunk -> place in a pack.

Implements docs/format.md, "Chunk index, versions 1 and 2".  Columns, not rows: what is
regular (offsets of neighbours, order of chunks) becomes runs of a few bytes, and
the digests, which nothing can shrink, stand alone.  Parsed whole or refused:
every number a caller gets from a `ChunkIndex` has been checked, so a reader
needs no bounds checks of its own.  Nothing here does I/O.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from struct import Struct

from store.errors import FormatError, IntegrityError, UnsupportedVersion
from store.format.digest import DIGEST_SIZE, digest_of
from store.format.packfile import CHUNK_LIMIT
from store.format.packfile import HEADER as PACK_HEADER

MAGIC = b"bootfsCI"
VERSION = 1
WITH_FILTERED = 2
"""Version of the index of an image with a pack of that version: the same layout."""
HOLE = 0xFFFFFFFF
"""Chunk number of a place that no chunk fills: it reads as zeros, by intent."""
BLOCK = 4096
"""Unit of holes, of alignment in the data region, and of EROFS."""
FRAME = 256 << 10
"""Plain bytes of a bootstrap frame; the last one is shorter."""
REGION_ALIGNMENT = 2 << 20
"""The data region starts at a multiple of this: of a huge page, and of any read-ahead."""
BODY_LIMIT = 1 << 30
"""A plain body larger than this is refused: about 24 million chunks, 1.5 TB of data."""
IMAGE_LIMIT = 1 << 44
"""``image.erofs`` is smaller than this: EROFS counts blocks in 32 bits."""
PLACE_LIMIT = 1 << 26
"""No more places than this, of all runs together: 4 TiB at the average size of a chunk."""
PIECE = 1024
"""Places that are made at a time: 0.1 ms."""
FRAME_STORED_LIMIT = FRAME + (FRAME >> 8) + 64
"""No stored bootstrap frame is larger: what zstd makes of bytes that it cannot shrink."""

# ------  ----  ------------------------------------------------
# offset  size  header field (little-endian)
# ------  ----  ------------------------------------------------
#      0     8  magic "bootfsCI"
#      8     2  version, 1 or 2
#     10     2  zero
#     12     4  plain bytes of a bootstrap frame
#     16     8  plain size of the bootstrap
#     24     8  start of the data region in image.erofs
#     32     8  size of the data region
#     40     4  number of bootstrap frames
#     44     4  number of packs
#     48     4  number of chunks
#     52     4  number of pack runs
#     56     4  number of place runs
#     60     4  plain size of the body
#     64     4  stored size of the body
#     68     4  zero
#     72    32  BLAKE3 digest of the stored body
# ------  ----  ------------------------------------------------
HEADER = Struct("<8sHHIQQQIIIIIIII32s")


class ChunkIndex:
    """What lies where in ``image.erofs``; offsets and sizes are bytes.

    Places tile the data region from 0 to ``data_size``: place ``i`` covers
    ``starts[i]`` to ``starts[i + 1]`` and shows chunk ``place_chunks[i]``, or
    zeros where that is `HOLE`.  Chunk ``c`` has ``digests[32*c : 32*c + 32]``,
    ``plain_sizes[c]``, and lies in pack ``packs[c]`` at ``offsets[c]`` with
    ``stored_sizes[c]``.  Bootstrap frame ``f`` is the bytes ``frame_starts[f]``
    to ``frame_starts[f + 1]`` of the bootstrap file, plain where they are as many as its
    plain bytes.  Not to be changed.
    """

    __slots__ = (
        "_offsets",
        "_pack_runs",
        "_packs",
        "_place_chunks",
        "_place_runs",
        "_starts",
        "bootstrap_size",
        "data_size",
        "data_start",
        "digests",
        "frame_digests",
        "frame_starts",
        "pack_digests",
        "pack_sizes",
        "plain_sizes",
        "stored_sizes",
        "version",
    )

    def __init__(self) -> None:
        self.version = VERSION
        self.bootstrap_size = 0
        self.data_start = 0
        self.data_size = 0
        self.frame_starts: array[int] = array("Q", [0])
        self.frame_digests: list[bytes] = []
        self.pack_digests: list[bytes] = []
        self.pack_sizes: array[int] = array("Q")
        self.digests: bytes | memoryview = b""
        self.plain_sizes: array[int] = array("I")
        self.stored_sizes: array[int] = array("I")
        self._packs: array[int] = array("I")
        self._offsets: array[int] = array("Q")
        self._pack_runs: tuple[array[int], array[int], array[int]] | None = None
        self._starts: array[int] = array("Q", [0])
        self._place_chunks: array[int] = array("I")
        self._place_runs: tuple[array[int], array[int]] | None = None

    @property
    def chunk_count(self) -> int:
        """Number of distinct chunks."""
        return len(self.plain_sizes)

    @property
    def packs(self) -> array[int]:
        """Number of the pack of each chunk."""
        self._unfold_pack_runs()
        return self._packs

    @packs.setter
    def packs(self, packs: array[int]) -> None:
        self._packs = packs

    @property
    def offsets(self) -> array[int]:
        """Offset in its pack of each chunk."""
        self._unfold_pack_runs()
        return self._offsets

    @offsets.setter
    def offsets(self, offsets: array[int]) -> None:
        self._offsets = offsets

    @property
    def starts(self) -> array[int]:
        """Where each place starts in the data region, and where the last one ends."""
        self.unfold_places()
        return self._starts

    @starts.setter
    def starts(self, starts: array[int]) -> None:
        self._starts = starts

    @property
    def place_chunks(self) -> array[int]:
        """Chunk of each place, or `HOLE`."""
        self.unfold_places()
        return self._place_chunks

    @place_chunks.setter
    def place_chunks(self, chunks: array[int]) -> None:
        self._place_chunks = chunks

    def digest(self, chunk: int) -> bytes:
        """Return the raw digest of chunk number ``chunk``."""
        return bytes(self.digests[chunk * DIGEST_SIZE : (chunk + 1) * DIGEST_SIZE])

    def _unfold_pack_runs(self) -> None:
        """Make ``packs`` and ``offsets`` of what was parsed, when somebody first asks.

        Only who fetches does, and a start from the cache is spared it.  Threads that ask
        at once make the same.
        """
        runs = self._pack_runs
        if runs is None:
            return
        unfolded: tuple[array[int], array[int]] = (array("I"), array("Q"))
        packs, offsets = unfolded
        for run, (first, pack, offset) in enumerate(zip(*runs, strict=True)):
            end = runs[0][run + 1] if run + 1 < len(runs[0]) else self.chunk_count
            places = list(accumulate(self.stored_sizes[first:end], initial=offset))
            places.pop()
            offsets += array("Q", places)
            packs += array("I", [pack]) * (end - first)
        self._packs, self._offsets = unfolded
        self._pack_runs = None

    def unfold_places(self) -> None:
        """Make ``starts`` and ``place_chunks`` of what was parsed, as who first asks does.

        Threads that ask at once make the same.
        """
        if self._place_runs is not None:
            for _ in self.iter_unfolding():
                continue

    def iter_unfolding(self) -> Iterator[None]:
        """Do what `unfold_places` does, and yield after each `PIECE` places or so.

        For a daemon that has reads to answer meanwhile: of an image with 20,000 chunks
        all of it takes 2 ms.
        """
        runs = self._place_runs
        if runs is None:
            return
        numbers = array("I", range(self.chunk_count))
        chunks, starts = array("I"), array("Q", [0])
        done = at = 0
        for first, length in zip(*runs, strict=True):
            if first == HOLE:
                at += length * BLOCK
                chunks.append(HOLE)
                starts.append(at)
                continue
            for chunk in range(first, first + length, PIECE):
                end = min(chunk + PIECE, first + length)
                chunks += numbers[chunk:end]
                ends = array("Q", accumulate(self.plain_sizes[chunk:end], initial=at))
                at = ends[-1]
                starts += ends[1:]
                if len(chunks) - done >= PIECE:
                    done = len(chunks)
                    yield
        self._place_chunks, self._starts = chunks, starts
        self._place_runs = None


class _Columns:
    """A cursor over the plain body, column after column."""

    __slots__ = ("at", "body")

    def __init__(self, body: memoryview) -> None:
        self.body = body
        self.at = 0

    def take(self, size: int) -> memoryview:
        at = self.at
        self.at = at + size
        return self.body[at : at + size]

    def numbers(self, kind: str, count: int) -> array[int]:
        column = array(kind)
        column.frombytes(self.take(count * column.itemsize))
        return column

    def digests(self, count: int) -> list[bytes]:
        column = bytes(self.take(count * DIGEST_SIZE))
        return [column[i : i + DIGEST_SIZE] for i in range(0, len(column), DIGEST_SIZE)]


def _refuse(offset: int, problem: str) -> FormatError:
    return FormatError("chunk index", offset, problem)


def parse_chunk_index(data: bytes, *, is_verified: bool = False) -> ChunkIndex:
    """Return the chunk index that ``data`` is, or nothing of it.

    The digest in it is not looked at where all of it ``is_verified`` by another one.

    Raises:
        UnsupportedVersion: a version this release does not read.
        FormatError: damaged, or a number in it cannot be right.

    """
    if len(data) < HEADER.size or data[:8] != MAGIC:
        raise _refuse(0, "no magic; not a chunk index, or cut short")
    (
        _, version, zero, frame_size, bootstrap_size, data_start, data_size,
        frames, packs, chunks, pack_runs, place_runs, plain, stored, zero2, digest,
    ) = HEADER.unpack_from(data)  # fmt: skip
    if version not in (VERSION, WITH_FILTERED):
        raise UnsupportedVersion("chunk index", 8, f"version {version}, this reads 1 and 2")
    if zero or zero2 or frame_size != FRAME:
        raise _refuse(10, "a field that the version fixes has another value")
    if frames != -(-bootstrap_size // FRAME) or not frames:
        raise _refuse(40, f"{frames} frames for a bootstrap of {bootstrap_size} bytes")
    if data_start != -(-bootstrap_size // REGION_ALIGNMENT) * REGION_ALIGNMENT or data_size % BLOCK:
        raise _refuse(24, f"data region of {data_size} bytes misplaced at {data_start}")
    if data_start + data_size >= IMAGE_LIMIT:
        raise _refuse(32, f"data region of {data_size} bytes, over the limit of 16 TiB")
    expected = frames * 36 + packs * 40 + chunks * 40 + pack_runs * 16 + place_runs * 8
    if plain != expected or plain > BODY_LIMIT or len(data) != HEADER.size + stored:
        raise _refuse(60, f"body of {len(data) - HEADER.size} stored, {plain} plain bytes")
    if chunks * DIGEST_SIZE > stored:
        # Digests cannot be compressed: a small body that claims many is a bomb.
        raise _refuse(48, f"{chunks} chunks in a body of {stored} stored bytes")
    body = memoryview(data)[HEADER.size :]
    if not is_verified and digest_of(body) != digest:
        raise _refuse(72, "digest mismatch; the chunk index is damaged")
    if stored != plain:
        # Here, since what this release writes needs no decompressor.
        from store.format.zstdframe import decompress

        try:
            body = memoryview(decompress(body, plain, "body"))
        except IntegrityError as error:
            raise _refuse(HEADER.size, str(error)) from None

    columns = _Columns(body)
    index = ChunkIndex()
    index.version = version
    index.bootstrap_size = bootstrap_size
    index.data_start = data_start
    index.data_size = data_size
    frame_sizes = columns.numbers("I", frames)
    if not 0 < min(frame_sizes) <= max(frame_sizes) <= FRAME_STORED_LIMIT:
        raise _refuse(HEADER.size, "a bootstrap frame of no bytes, or over the limit")
    index.frame_starts = array("Q", accumulate(frame_sizes, initial=0))
    index.frame_digests = columns.digests(frames)
    index.pack_digests = columns.digests(packs)
    index.pack_sizes = columns.numbers("Q", packs)
    index.digests = columns.take(chunks * DIGEST_SIZE)
    index.plain_sizes = columns.numbers("I", chunks)
    index.stored_sizes = columns.numbers("I", chunks)
    _check_sizes(index.plain_sizes, index.stored_sizes)
    _place_in_packs(
        index,
        columns.numbers("I", pack_runs),
        columns.numbers("I", pack_runs),
        columns.numbers("Q", pack_runs),
    )
    _place_in_region(index, columns.numbers("I", place_runs), columns.numbers("I", place_runs))
    return index


def _check_sizes(plain_sizes: array[int], stored_sizes: array[int]) -> None:
    """Check each chunk's sizes: 0 < stored <= plain <= `CHUNK_LIMIT`.

    All at once, each column as one number of 32-bit lanes: one by one, this took half of
    the time that a chunk index takes.  A lane whose top bit is set before a subtraction of
    less than that bit keeps it if it was not the smaller one, and never borrows from the next.
    """
    plain = int.from_bytes(plain_sizes.tobytes(), "little")
    stored = int.from_bytes(stored_sizes.tobytes(), "little")
    ones = int.from_bytes(b"\1\0\0\0" * len(plain_sizes), "little")
    top = ones << 31
    if plain & top or ((ones * CHUNK_LIMIT | top) - plain) & top != top:
        raise _refuse(HEADER.size, "a chunk over the limit")
    if stored & top or ((plain | top) - stored) & top != top:
        raise _refuse(HEADER.size, "a chunk is larger stored than plain")
    if ((stored | top) - ones) & top != top:
        raise _refuse(HEADER.size, "a chunk of no bytes")


def _place_in_packs(
    index: ChunkIndex, firsts: array[int], packs: array[int], offsets: array[int]
) -> None:
    """Check and keep runs of chunks that lie back to back in one pack."""
    count = index.chunk_count
    if (firsts[0] if firsts else 0) != 0 or (count and not firsts):
        raise _refuse(HEADER.size, "pack runs do not start at chunk 0")
    for run, first in enumerate(firsts):
        end = firsts[run + 1] if run + 1 < len(firsts) else count
        if not first < end <= count or packs[run] >= len(index.pack_sizes):
            raise _refuse(HEADER.size, f"pack run {run} out of order or of an unknown pack")
        run_end = offsets[run] + sum(index.stored_sizes[first:end])
        if offsets[run] < PACK_HEADER.size or run_end > index.pack_sizes[packs[run]]:
            raise _refuse(HEADER.size, f"pack run {run} leaves its pack")
    index._pack_runs = (firsts, packs, offsets)


def _place_in_region(index: ChunkIndex, firsts: array[int], lengths: array[int]) -> None:
    """Check and keep runs of neighbouring chunks, and holes."""
    sizes, known = index.plain_sizes, index.chunk_count
    # Runs name chunks again and again for 8 bytes each: none may make long lists.
    # A stream of whole blocks is never cut into more places than blocks.
    limit = min(index.data_size // BLOCK, PLACE_LIMIT)
    at = count = 0
    for run, (first, length) in enumerate(zip(firsts, lengths, strict=True)):
        if not length:
            raise _refuse(HEADER.size, f"place run {run} is empty")
        count += 1 if first == HOLE else length
        if count > limit:
            raise _refuse(
                HEADER.size, f"{count} places in a data region of {index.data_size} bytes"
            )
        if first == HOLE:
            at += length * BLOCK
            continue
        end = first + length
        if end > known:
            raise _refuse(HEADER.size, f"place run {run} names an unknown chunk")
        at += sum(sizes[first:end])
    if at != index.data_size:
        raise _refuse(HEADER.size, f"places end at {at} of {index.data_size}")
    index._place_runs = (firsts, lengths)


def encode_chunk_index(index: ChunkIndex, compressed: CompressBody | None = None) -> bytes:
    """Return the bytes of a chunk index, its body plain, or as ``compressed`` makes a zstd frame.

    The compressor is the caller's so that the boot path does not import one.
    """
    pack_firsts, pack_numbers, pack_offsets = array("I"), array("I"), array("Q")
    expected = (-1, -1)
    for chunk, (pack, offset) in enumerate(zip(index.packs, index.offsets, strict=True)):
        if (pack, offset) != expected:
            pack_firsts.append(chunk)
            pack_numbers.append(pack)
            pack_offsets.append(offset)
        expected = (pack, offset + index.stored_sizes[chunk])
    place_firsts, place_lengths = array("I"), array("I")
    following = -1
    for place, chunk in enumerate(index.place_chunks):
        if chunk == HOLE:
            place_firsts.append(HOLE)
            place_lengths.append((index.starts[place + 1] - index.starts[place]) // BLOCK)
            following = -1
        elif chunk == following:
            place_lengths[-1] += 1
            following += 1
        else:
            place_firsts.append(chunk)
            place_lengths.append(1)
            following = chunk + 1
    starts = index.frame_starts
    frame_sizes = array("I", [starts[i + 1] - starts[i] for i in range(len(starts) - 1)])
    body = b"".join(
        (
            frame_sizes.tobytes(),
            *index.frame_digests,
            *index.pack_digests,
            index.pack_sizes.tobytes(),
            index.digests,
            index.plain_sizes.tobytes(),
            index.stored_sizes.tobytes(),
            pack_firsts.tobytes(),
            pack_numbers.tobytes(),
            pack_offsets.tobytes(),
            place_firsts.tobytes(),
            place_lengths.tobytes(),
        )
    )
    stored = compressed(body) if compressed is not None else body
    header = HEADER.pack(
        MAGIC, index.version, 0, FRAME, index.bootstrap_size, index.data_start, index.data_size,
        len(index.frame_digests), len(index.pack_digests), index.chunk_count,
        len(pack_firsts), len(place_firsts), len(body), len(stored), 0, digest_of(stored),
    )  # fmt: skip
    return header + stored


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    CompressBody = Callable[[bytes], bytes]
