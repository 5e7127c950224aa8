"""What released versions wrote is read as they meant it, and written again byte for byte."""

import hashlib

import pytest

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
from store.read.fetch import plain_of
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
