from array import array
from collections.abc import Callable
from itertools import accumulate

import pytest
from zstandard import ZstdCompressor

from store.errors import FormatError, UnsupportedVersion
from store.format.chunkindex import (
    BLOCK,
    FRAME,
    HEADER,
    HOLE,
    PIECE,
    REGION_ALIGNMENT,
    ChunkIndex,
    encode_chunk_index,
    parse_chunk_index,
)
from tests.support.stores import make_index

COMPRESS = ZstdCompressor(1, write_content_size=False).compress
FIELDS = [
    "magic",
    "version",
    "zero",
    "frame",
    "bootstrap_size",
    "data_start",
    "data_size",
    "frames",
    "packs",
    "chunks",
    "pack_runs",
    "place_runs",
    "plain",
    "stored",
    "zero2",
    "digest",
]


def rebuilt(**changed: object) -> bytes:
    """Return the index encoded with header fields changed, its digest right."""
    data = encode_chunk_index(make_index(), COMPRESS)
    fields = dict(zip(FIELDS, HEADER.unpack_from(data), strict=True))
    return HEADER.pack(*(fields | changed).values()) + data[HEADER.size :]


def with_body(change: Callable[[bytearray], None], **changed: object) -> bytes:
    """Return the index with its plain body changed and everything around it right."""
    plain: list[bytes] = []

    def compress(body: bytes) -> bytes:
        edited = bytearray(body)
        change(edited)
        plain.append(bytes(edited))
        return COMPRESS(bytes(edited))

    data = encode_chunk_index(make_index(), compress)
    fields = dict(zip(FIELDS, HEADER.unpack_from(data), strict=True))
    fields |= {"plain": len(plain[0]), **changed}
    return HEADER.pack(*fields.values()) + data[HEADER.size :]


# Where the columns of `make_index` lie in the plain body.
FRAME_SIZES = 0
PACK_SIZES = 2 * 36 + 2 * 32
DIGESTS = PACK_SIZES + 2 * 8
PLAIN_SIZES = DIGESTS + 3 * 32
STORED_SIZES = PLAIN_SIZES + 12
RUN_FIRSTS = STORED_SIZES + 12
RUN_PACKS = RUN_FIRSTS + 8
RUN_OFFSETS = RUN_PACKS + 8
PLACE_FIRSTS = RUN_OFFSETS + 16
PLACE_LENGTHS = PLACE_FIRSTS + 16


def put(at: int, value: int, size: int = 4) -> Callable[[bytearray], None]:
    def change(body: bytearray) -> None:
        body[at : at + size] = value.to_bytes(size, "little")

    return change


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("compressed", [COMPRESS, None], ids=["compressed", "plain"])
def test_every_column_comes_back(compressed: Callable[[bytes], bytes] | None, version: int) -> None:
    index = make_index()
    index.version = version
    parsed = parse_chunk_index(encode_chunk_index(index, compressed))
    columns = [name for name in ChunkIndex.__slots__ if not name.startswith("_")]
    for name in [*columns, "packs", "offsets"]:
        assert getattr(parsed, name) == getattr(index, name), name


def test_nothing_is_changed_by_the_helper_of_these_tests() -> None:
    assert parse_chunk_index(with_body(lambda _: None)).chunk_count == 3
    assert parse_chunk_index(rebuilt()).chunk_count == 3


def test_an_image_without_data_has_an_index() -> None:
    index = ChunkIndex()
    index.bootstrap_size = 100
    index.data_start = REGION_ALIGNMENT
    index.frame_starts = array("Q", [0, 10])
    index.frame_digests = [bytes(32)]
    parsed = parse_chunk_index(encode_chunk_index(index, COMPRESS))
    assert (parsed.chunk_count, list(parsed.starts), parsed.data_size) == (0, [0], 0)


@pytest.mark.parametrize(
    "change",
    [
        {"magic": b"bootfsXX"},
        {"zero": 1},
        {"zero2": 1},
        {"frame": FRAME + 1},
        {"bootstrap_size": 0},
        {"bootstrap_size": 1 << 63},
        {"data_start": 0},
        {"data_start": 2 * REGION_ALIGNMENT},
        {"data_size": 6 * BLOCK + 1},
        {"data_size": 5 * BLOCK},
        {"data_size": 7 * BLOCK},
        {"data_size": (1 << 64) - BLOCK},
        {"frames": 1},
        {"frames": 0xFFFFFFFF},
        {"packs": 3},
        {"packs": 0xFFFFFFFF},
        {"chunks": 2},
        {"chunks": 0xFFFFFFFF},
        {"pack_runs": 0},
        {"pack_runs": 0xFFFFFFFF},
        {"place_runs": 0},
        {"place_runs": 0xFFFFFFFF},
        {"plain": 0},
        {"plain": 0xFFFFFFFF},
        {"stored": 0},
        {"stored": 0xFFFFFFFF},
        {"digest": bytes(32)},
    ],
    ids=str,
)
def test_a_header_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        parse_chunk_index(rebuilt(**change))


def test_a_later_version_is_named_as_such() -> None:
    with pytest.raises(UnsupportedVersion, match="version 3"):
        parse_chunk_index(rebuilt(version=3))


@pytest.mark.parametrize(
    ("at", "value", "size"),
    [
        (FRAME_SIZES, 0, 4),
        (FRAME_SIZES, 0xFFFFFFFF, 4),
        (PLAIN_SIZES, 0, 4),
        (PLAIN_SIZES, BLOCK - 1, 4),
        (PLAIN_SIZES, (1 << 20) + 1, 4),
        (STORED_SIZES, 0, 4),
        (STORED_SIZES, BLOCK + 1, 4),
        (RUN_FIRSTS, 1, 4),
        (RUN_FIRSTS + 4, 0, 4),
        (RUN_FIRSTS + 4, 3, 4),
        (RUN_PACKS, 2, 4),
        (RUN_OFFSETS, 15, 8),
        (RUN_OFFSETS, 901, 8),
        (RUN_OFFSETS, (1 << 64) - 1, 8),
        (PLACE_FIRSTS, 2, 4),
        (PLACE_FIRSTS, 0xFFFFFFFE, 4),
        (PLACE_LENGTHS, 0, 4),
        (PLACE_LENGTHS, 3, 4),
        (PLACE_LENGTHS, 0xFFFFFFFF, 4),
        (PLACE_LENGTHS + 4, 0xFFFFFFFF, 4),
    ],
)
def test_a_number_that_cannot_be_is_refused_though_every_digest_is_right(
    at: int, value: int, size: int
) -> None:
    with pytest.raises(FormatError):
        parse_chunk_index(with_body(put(at, value, size)))


def test_counts_without_their_bytes_are_refused_before_anything_is_allocated() -> None:
    # 20 million chunks of nothing but zeros: 90 kB stored.
    chunks = 20_000_000
    plain = 36 + chunks * 40
    data = HEADER.pack(
        *(b"bootfsCI", 1, 0, FRAME, 100, REGION_ALIGNMENT, 0, 1, 0, chunks, 0, 0),
        *(plain, 90_000, 0, bytes(32)),
    ) + bytes(90_000)
    with pytest.raises(FormatError, match="20000000 chunks"):
        parse_chunk_index(data)


def test_runs_that_name_the_same_chunks_again_and_again_are_counted_first() -> None:
    """Eight bytes can name millions of places: nothing may be made of them before."""
    runs = 4096

    def change(body: bytearray) -> None:
        body[PLAIN_SIZES : PLAIN_SIZES + 12] = array("I", [1, 1, 1]).tobytes()
        body[STORED_SIZES : STORED_SIZES + 12] = array("I", [1, 1, 1]).tobytes()
        body[PLACE_FIRSTS:] = array("I", [0] * runs).tobytes() + array("I", [3] * runs).tobytes()

    with pytest.raises(FormatError, match="6 places in a data region of 12288 bytes"):
        parse_chunk_index(with_body(change, place_runs=runs, data_size=3 * BLOCK))


def test_places_are_made_in_pieces_and_whole_by_who_asks_meanwhile() -> None:
    index = ChunkIndex()
    count = 3 * PIECE + 7
    index.bootstrap_size, index.data_start = BLOCK, REGION_ALIGNMENT
    index.frame_starts, index.frame_digests = array("Q", [0, BLOCK]), [bytes(32)]
    index.pack_digests, index.pack_sizes = [bytes(32)], array("Q", [1 << 40])
    index.digests = bytes(32 * count)
    index.plain_sizes = array("I", [BLOCK + chunk for chunk in range(count)])
    index.stored_sizes = array("I", [100]) * count
    index.packs = array("I", [0]) * count
    index.offsets = array("Q", [HEADER.size + 100 * chunk for chunk in range(count)])
    # Some once more, a hole, and all in a run that is longer than a piece.
    index.place_chunks = array("I", [5, 6, 7, HOLE, *range(count)])
    sizes = [3 * BLOCK if c == HOLE else index.plain_sizes[c] for c in index.place_chunks]
    sizes[-1] += -sum(sizes) % BLOCK
    index.plain_sizes[-1] = sizes[-1]
    index.starts = array("Q", accumulate(sizes, initial=0))
    index.data_size = index.starts[-1]

    parsed = parse_chunk_index(encode_chunk_index(index))
    pieces = parsed.iter_unfolding()
    next(pieces)
    assert (parsed.starts, parsed.place_chunks) == (index.starts, index.place_chunks)
    assert len(list(pieces)) >= 1
    assert (parsed.starts, parsed.place_chunks) == (index.starts, index.place_chunks)
    assert list(parsed.iter_unfolding()) == []
