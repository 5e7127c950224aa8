"""Any compression, in bounded pieces, and damage always told."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
import zstandard

from converter.decompress import compression_of, iter_plain
from store.errors import FormatError
from tests.support.layers import compressed

DATA = b"".join(b"line %d\n" % number for number in range(50_000))
SKIPPABLE = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("size", [1, 3, 4096, 1 << 20])
def test_gives_the_plain_bytes_whatever_the_pieces(how: str, size: int) -> None:
    data = DATA[:3000] if size < 10 else DATA
    stored = compressed(data, how)
    assert compression_of(stored) == how
    assert b"".join(iter_plain(pieces(stored, size), "x")) == data


@pytest.mark.parametrize(
    "stored",
    [
        gzip.compress(b"abc") + gzip.compress(b"") + gzip.compress(b"def"),
        zstandard.compress(b"abc") + SKIPPABLE + zstandard.compress(b"def") + SKIPPABLE,
        SKIPPABLE + zstandard.compress(b"abcdef"),
    ],
)
def test_members_and_frames_follow_each_other(stored: bytes) -> None:
    assert b"".join(iter_plain(iter([stored]), "x")) == b"abcdef"


def test_nothing_is_nothing() -> None:
    assert b"".join(iter_plain(iter([]), "x")) == b""
    assert b"".join(iter_plain(iter([b"\x1f"]), "x")) == b"\x1f"


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_every_truncation_is_told(how: str) -> None:
    stored = compressed(DATA[:2000], how)
    for end in range(4, len(stored)):
        with pytest.raises(FormatError, match="x: at byte"):
            b"".join(iter_plain(iter([stored[:end]]), "x"))


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_garbage_after_the_end_is_told(how: str) -> None:
    with pytest.raises(FormatError):
        b"".join(iter_plain(iter([compressed(DATA, how) + b"garbage"]), "x"))


@pytest.mark.parametrize(("how", "limit"), [("gzip", 1 << 20), ("zstd", 64 << 20)])
def test_a_bomb_comes_in_bounded_pieces(how: str, limit: int) -> None:
    stored = compressed(bytes(200 << 20), how)
    assert len(stored) < 2 << 20
    assert max(len(piece) for piece in iter_plain(iter([stored]), "x")) <= limit


def test_a_window_beyond_the_limit_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    stored = packer.compress(bytes(1000)) + packer.flush()
    with pytest.raises(FormatError, match="zstd"):
        b"".join(iter_plain(iter([stored]), "x"))
