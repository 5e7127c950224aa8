"""Damage done to any object is refused by name, or changes nothing that it promises."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from zstandard import ZstdCompressor

from store.errors import FormatError, RemoteProtocolError
from store.format.bootconfig import BootConfig, encode_boot_config, parse_boot_config
from store.format.chunkindex import HOLE, encode_chunk_index, parse_chunk_index
from store.format.digest import digest_of
from store.format.http1 import parse_head
from store.format.packfile import (
    ENTRY,
    FOOTER,
    HEADER,
    PackEntry,
    encode_header,
    encode_tail,
    parse_footer,
    parse_header,
    parse_table,
)
from store.write.manifest import encode_manifest, parse_manifest
from tests.support.damage import damaged
from tests.support.stores import make_index

BODIES = [Random(n).randbytes(size) for n, size in enumerate((10, 300, 5))]
ENTRIES = []
for body in BODIES:
    last = ENTRIES[-1].offset + ENTRIES[-1].stored_size if ENTRIES else HEADER.size
    ENTRIES.append(PackEntry(digest_of(body), last, len(body), len(body)))
PACK = encode_header() + b"".join(BODIES) + encode_tail(ENTRIES)


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.integers(1, 1 << 20))))
def test_pack_tables_come_back(chunks: list[tuple[bytes, int]]) -> None:
    entries, at = [], HEADER.size
    for digest, size in chunks:
        entries.append(PackEntry(digest, at, (size + 1) // 2, size))
        at += (size + 1) // 2
    if entries:
        tail = encode_tail(entries)
        table_at, size, digest = parse_footer(tail[-FOOTER.size :], at + len(tail))
        assert (table_at, size) == (at, len(entries) * ENTRY.size)
        assert parse_table(tail[:size], digest, table_at) == entries


@given(damaged(PACK))
def test_a_damaged_pack_is_refused_or_its_table_is_right(data: bytes) -> None:
    try:
        parse_header(data[: HEADER.size])
        table_at, size, digest = parse_footer(data[-FOOTER.size :], len(data))
        entries = parse_table(data[table_at : table_at + size], digest, table_at)
    except FormatError:
        return
    assert entries == ENTRIES


INDEX = encode_chunk_index(make_index(), ZstdCompressor(1, write_content_size=False).compress)


@given(damaged(INDEX))
def test_a_damaged_chunk_index_is_refused(data: bytes) -> None:
    try:
        parse_chunk_index(data)
    except FormatError:
        return
    if len(data) == len(INDEX):
        # The size of the bootstrap's last frame is for the digest of the whole to tell,
        # which is in the boot config and compared first.
        assert digest_of(data) != digest_of(INDEX) or data == INDEX
        data = data[:16] + INDEX[16:24] + data[24:]
    assert data == INDEX


@given(st.data())
def test_a_chunk_index_of_noise_with_right_digests_is_refused_or_in_bounds(
    data: st.DataObject,
) -> None:
    """Everything that readers rely on without asking holds, whatever the columns say."""
    edits = data.draw(st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=8))))

    def compress(body: bytes) -> bytes:
        edited = bytearray(body)
        for at, new in edits:
            edited[at : at + len(new)] = new
        return ZstdCompressor(1, write_content_size=False).compress(bytes(edited[: len(body)]))

    try:
        index = parse_chunk_index(encode_chunk_index(make_index(), compress))
    except FormatError:
        return
    assert index.starts[0] == 0 and index.starts[-1] == index.data_size
    assert all(a < b for a, b in zip(index.starts, index.starts[1:], strict=False))
    assert len(index.starts) == len(index.place_chunks) + 1
    for place, chunk in enumerate(index.place_chunks):
        size = index.starts[place + 1] - index.starts[place]
        assert chunk == HOLE or index.plain_sizes[chunk] == size
    for chunk in range(index.chunk_count):
        end = index.offsets[chunk] + index.stored_sizes[chunk]
        assert HEADER.size <= index.offsets[chunk] < end <= index.pack_sizes[index.packs[chunk]]
        assert len(index.digest(chunk)) == 32


CONFIG = encode_boot_config(
    BootConfig(b"1", b"name", bytes(32), [b"/bin/sh", b"-c"], b"http://x", [b"/data", b"/x"])
)


@given(
    st.builds(
        BootConfig,
        st.binary(),
        st.binary(),
        st.binary(min_size=32, max_size=32),
        st.lists(st.binary()),
        st.binary(),
        st.lists(st.binary()),
    )
)
def test_boot_configs_come_back(config: BootConfig) -> None:
    parsed = parse_boot_config(encode_boot_config(config))
    assert all(getattr(parsed, name) == getattr(config, name) for name in BootConfig.__slots__)


@given(damaged(CONFIG))
def test_a_damaged_boot_config_is_refused(data: bytes) -> None:
    try:
        parse_boot_config(data)
    except FormatError:
        return
    assert data == CONFIG


@given(st.binary(max_size=200))
def test_fields_of_noise_in_a_boot_config_are_refused_or_read(body: bytes) -> None:
    header = b"bootfsBC\x01\0\0\0" + len(body).to_bytes(4, "little") + digest_of(body)
    try:
        config = parse_boot_config(header + body)
    except FormatError:
        return
    assert len(config.chunk_index) == 32


MANIFEST = encode_manifest(bytes(range(32)), [(bytes([7]) * 32, 1 << 25)])


@given(damaged(MANIFEST))
def test_a_damaged_manifest_is_refused_or_has_values_of_the_right_kinds(data: bytes) -> None:
    try:
        index, packs = parse_manifest(data)
    except FormatError:
        return
    assert len(index) == 32
    assert all(len(digest) == 32 and size > 0 for digest, size in packs)


HEAD = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10"


@given(damaged(HEAD) | st.binary(max_size=300))
def test_a_damaged_response_head_is_refused_or_has_a_status(data: bytes) -> None:
    try:
        head = parse_head(data)
        length = head.content_length
    except RemoteProtocolError:
        return
    assert 0 <= head.status < 1000 and (length is None or length >= 0)
