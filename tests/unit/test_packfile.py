import pytest

from store.errors import FormatError, UnsupportedVersion
from store.format.digest import digest_of
from store.format.packfile import (
    CHUNK_LIMIT,
    ENTRY,
    FOOTER,
    HEADER,
    PackEntry,
    encode_header,
    encode_tail,
    parse_footer,
    parse_header,
    parse_table,
    version_of,
)

ENTRIES = [
    PackEntry(digest_of(b"one"), HEADER.size, 100, 300),
    PackEntry(digest_of(b"two"), HEADER.size + 100, 50, 50),
]


def parse_tail(tail: bytes, size: int) -> list[PackEntry]:
    at, table_size, digest = parse_footer(tail[-FOOTER.size :], size)
    return parse_table(tail[:table_size], digest, at)


def footer(**changed: object) -> bytes:
    table = encode_tail(ENTRIES)[: -FOOTER.size]
    fields = {
        "at": HEADER.size + 150,
        "count": 2,
        "version": 1,
        "zero": 0,
        "digest": digest_of(table),
        "zero2": 0,
        "magic": b"bootfsPK",
    }
    return FOOTER.pack(*(fields | changed).values())


SIZE = HEADER.size + 150 + 2 * ENTRY.size + FOOTER.size


def test_entries_come_back_with_their_offsets() -> None:
    assert parse_tail(encode_tail(ENTRIES), SIZE) == ENTRIES


def test_header_comes_back() -> None:
    parse_header(encode_header())


@pytest.mark.parametrize("header", [b"", b"bootfsPK", b"bootfsXX" + bytes(8), b"\0" * 16])
def test_other_headers_are_refused(header: bytes) -> None:
    with pytest.raises(FormatError):
        parse_header(header)


def test_a_later_version_is_named_as_such() -> None:
    with pytest.raises(UnsupportedVersion, match="version 3"):
        parse_header(b"bootfsPK\x03" + bytes(7))
    with pytest.raises(UnsupportedVersion, match="version 3"):
        parse_footer(footer(version=3), SIZE)


@pytest.mark.parametrize("version", [1, 2])
def test_a_version_comes_back(version: int) -> None:
    parse_header(encode_header(version))
    tail = encode_tail(ENTRIES, version)
    assert parse_tail(tail, SIZE) == ENTRIES
    assert version_of(tail[-FOOTER.size :]) == version


@pytest.mark.parametrize(
    "change",
    [
        {"at": 0},
        {"at": HEADER.size + 149},
        {"at": 1 << 63},
        {"count": 0},
        {"count": 1},
        {"count": 0xFFFFFFFF},
        {"zero": 1},
        {"zero2": 1},
        {"magic": b"bootfsPX"},
    ],
)
def test_a_footer_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    parse_footer(footer(), SIZE)
    with pytest.raises(FormatError):
        parse_footer(footer(**change), SIZE)


@pytest.mark.parametrize("size", [0, FOOTER.size, FOOTER.size + HEADER.size - 1])
def test_a_file_too_short_for_a_pack_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="too few"):
        parse_footer(footer(), size)


@pytest.mark.parametrize(
    ("stored", "plain"), [(0, 0), (0, 5), (6, 5), (1, CHUNK_LIMIT + 1), (2**32 - 1, 2**32 - 1)]
)
def test_impossible_sizes_in_a_table_with_a_right_digest_are_refused(
    stored: int, plain: int
) -> None:
    table = ENTRY.pack(bytes(32), stored, plain)
    with pytest.raises(FormatError):
        parse_table(table, digest_of(table), HEADER.size + stored)


def test_bodies_that_do_not_reach_the_table_are_refused() -> None:
    table = ENTRY.pack(bytes(32), 5, 5)
    parse_table(table, digest_of(table), HEADER.size + 5)
    with pytest.raises(FormatError, match="bodies end"):
        parse_table(table, digest_of(table), HEADER.size + 6)


def test_part_of_an_entry_is_refused() -> None:
    with pytest.raises(FormatError, match="whole entries"):
        parse_table(b"123", digest_of(b"123"), HEADER.size)


def test_a_damaged_table_is_refused() -> None:
    tail = bytearray(encode_tail(ENTRIES))
    tail[3] ^= 1
    with pytest.raises(FormatError, match="digest"):
        parse_tail(bytes(tail), SIZE)
