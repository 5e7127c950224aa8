import tracemalloc

import pytest
from zstandard import ZstdCompressor

from store.errors import IntegrityError
from store.format.zstdframe import decompress

SILENT = ZstdCompressor(1, write_content_size=False, write_checksum=False)


def test_a_frame_comes_back() -> None:
    assert decompress(SILENT.compress(b"x" * 1000), 1000, "it") == b"x" * 1000
    assert decompress(ZstdCompressor().compress(b"x" * 1000), 1000, "it") == b"x" * 1000


@pytest.mark.parametrize("size", [0, 1, 999, 1001])
def test_a_frame_of_another_size_is_refused(size: int) -> None:
    for made in (SILENT, ZstdCompressor()):
        with pytest.raises(IntegrityError, match="it"):
            decompress(made.compress(b"x" * 1000), size, "it")


@pytest.mark.parametrize("data", [b"", b"\x28", b"no frame at all", b"\x50\x2a\x4d\x18\0\0\0\0"])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        decompress(data, 10, "it")


def test_a_frame_that_claims_terabytes_costs_no_memory() -> None:
    # RFC 8878, 3.1.1: magic, descriptor (8-byte content size, single segment), size, one block.
    claim = b"\x28\xb5\x2f\xfd\xe0" + (1 << 42).to_bytes(8, "little") + b"\x03\0\0x"
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match="4398046511104"):
            decompress(claim, 1000, "it")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_bomb_without_a_claim_is_not_unpacked_further_than_expected() -> None:
    bomb = SILENT.compress(bytes(64 << 20))
    with pytest.raises(IntegrityError):
        decompress(bomb, 1000, "it")
