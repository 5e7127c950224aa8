"""What released versions wrote is read as they meant it, and written again byte for byte."""

import hashlib

import pytest
from zstandard import ZstdDecompressor

from store.format.bootconfig import parse_boot_config
from store.format.chunkindex import BLOCK, HOLE, parse_chunk_index
from store.format.digest import digest_of
from store.format.packfile import (
    FOOTER,
    HEADER,
    parse_footer,
    parse_header,
    parse_table,
    version_of,
)
from store.format.profile import WINDOW, Profile, parse_profiles
from store.format.trace import parse_trace
from store.format.tracenames import trace_file_name, trace_name
from store.read.body import plain_of
from store.write.manifest import parse_manifest
from tests.format.regenerate import CHUNKS, FILES, GOLDEN, calls, noise, read


@pytest.mark.parametrize("name", FILES)
def test_this_release_writes_the_same_bytes(name: str) -> None:
    """A failure is a change of the format: see the head of regenerate.py."""
    assert FILES[name]() == read(name)


def test_every_golden_file_has_a_test() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(FILES)


@pytest.mark.parametrize(
    ("name", "chunks"), [("pack-1.hex", CHUNKS), ("pack-2.hex", [*CHUNKS, calls()])]
)
def test_packs(name: str, chunks: list[bytes]) -> None:
    data = read(name)
    parse_header(data[: HEADER.size])
    at, size, digest = parse_footer(data[-FOOTER.size :], len(data))
    entries = parse_table(data[at : at + size], digest, at)
    kinds = []
    for entry, chunk in zip(entries, chunks, strict=True):
        body = data[entry.offset : entry.offset + entry.stored_size]
        assert plain_of(body, entry.plain_size, entry.digest, "body") == chunk
        kinds.append("plain" if len(body) == len(chunk) else body[:1])
    assert kinds == [b"\x28", "plain", b"\x28", b"\1"][: len(chunks)]
    assert version_of(data[-FOOTER.size :]) == data[8] == int(name[5])


@pytest.mark.parametrize("version", [1, 2])
def test_chunk_indexes(version: int) -> None:
    index = parse_chunk_index(read(f"chunk-index-{version}.hex"))
    assert index.version == version
    assert (index.bootstrap_size, index.data_start, index.data_size) == (263_144, 2 << 20, 36_864)
    assert list(index.frame_starts) == [0, 5000, 5600]
    assert index.frame_digests == [digest_of(b"frame 0"), digest_of(b"frame 1")]
    assert index.pack_digests == [hashlib.sha256(b"pack %d" % n).digest() for n in range(2)]
    assert list(index.pack_sizes) == [20_000, 30_000]
    assert [index.digest(n) for n in range(4)] == [digest_of(b"chunk %d" % n) for n in range(4)]
    assert list(index.plain_sizes) == [4096, 8192, 4196, 3996]
    assert list(index.stored_sizes) == [1000, 8192, 1500, 2000]
    assert list(index.packs) == [0, 0, 1, 1]
    assert list(index.offsets) == [16, 1016, 500, 2000]
    assert list(index.place_chunks) == [0, 1, HOLE, 0, 2, 3]
    assert [at / BLOCK for at in index.starts] == [0, 1, 3, 6, 7, 8 + 100 / BLOCK, 9]


def test_profiles_1() -> None:
    full, empty = parse_profiles(read("profiles-1.hex"), digest_of(b"chunk index"), "it")
    assert (full.name, full.command) == ("postgres", [b"docker-entrypoint.sh", b"caf\xc3\xa9"])
    assert (full.origin, full.traces) == (1, 3)
    assert full.reads == [(0, 4), (600, 32), (512, 1)] and list(full.chunks) == [3, 0, 1]
    assert (full.hot_pack, full.hot_pack_size) == (hashlib.sha256(b"hot").digest(), 12345)
    bare = Profile("x", [])
    assert all(getattr(empty, name) == getattr(bare, name) for name in Profile.__slots__)


def test_hot_pack_1() -> None:
    """What a reader has at the flush is whole chunks."""
    data, plain = read("hot-pack-1.hex"), CHUNKS[2] * 40 + CHUNKS[0] + CHUNKS[1]
    assert ZstdDecompressor(max_window_size=WINDOW).decompressobj().decompress(data) == plain
    sizes = set()
    for end in range(len(data)):
        got = ZstdDecompressor(max_window_size=WINDOW).decompressobj().decompress(data[:end])
        assert plain.startswith(got)
        sizes.add(len(got))
    assert len(CHUNKS[2] * 40) in sizes


def test_trace_1() -> None:
    trace = parse_trace(read("trace-1.hex"), "it")
    assert (trace.image, trace.command) == (digest_of(b"chunk index"), [b"/bin/sh", b"-c", b""])
    assert (trace.begun_s, trace.reads) == (1_700_000_000, [(0, 0, 4), (250, 512, 32)])
    name = trace_file_name(trace.image, trace.begun_s, bytes(range(8)))
    image = trace.image.hex()
    assert name == f"trace-{image[:12]}-20231114T221320Z-0001020304050607"
    assert trace_name(trace.image, name) == f"traces/{image}/{name}"


def test_boot_config_1() -> None:
    config = parse_boot_config(read("boot-config-1.hex"))
    assert (config.release, config.source) == (b"0.1.0", b"docker-daemon:debian:12")
    assert config.chunk_index == digest_of(b"chunk index")
    assert config.entrypoint == [b"/bin/echo", "café".encode()]
    assert (config.blob_store, config.volumes) == (b"http://store.example/", [b"/data"])


def test_manifest_1() -> None:
    assert parse_manifest(read("manifest-1.hex")) == (
        digest_of(b"chunk index"),
        [(hashlib.sha256(b"pack %d" % n).digest(), 1000 + n) for n in range(2)],
    )


def test_the_noise_of_golden_files_is_what_it_always_was() -> None:
    assert hashlib.sha256(noise("cuts", 1000)).hexdigest() == (
        "79c90c71a41c169008ba540bf2b29aa2aa8b22014758b3af530816cc8745f485"
    )
