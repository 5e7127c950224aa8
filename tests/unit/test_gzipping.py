"""Gzip bytes must not depend on the machine: digests are taken over them."""

from __future__ import annotations

import gzip
import hashlib

import pytest

from converter.images.gzipping import gzip_deterministic


@pytest.mark.parametrize("data", [b"", b"a", b"abc" * 100_000, bytes(range(256)) * 64])
def test_gunzip_gives_the_data_back(data: bytes) -> None:
    assert gzip.decompress(gzip_deterministic(data)) == data


def test_header_names_no_time_no_file_and_no_system() -> None:
    stored = gzip_deterministic(b"data")
    assert stored[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
    assert stored[9] == 255


def test_bytes_are_those_of_the_pinned_compressor() -> None:
    lines = b"".join(b"line %d of a text that compresses\n" % number for number in range(20_000))
    digest = hashlib.sha256(gzip_deterministic(lines)).hexdigest()
    assert digest == "131beaa10d24bab66dd68fffee5d7bd203961a5a0e80c89d24eece561d839d14"
