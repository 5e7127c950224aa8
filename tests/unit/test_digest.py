import pytest

from store.errors import DigestMismatch
from store.format.digest import check_digest, digest_of, printable

# BLAKE3's own test vector for no input.
EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_digests_are_blake3() -> None:
    assert digest_of(b"").hex() == EMPTY
    assert printable(digest_of(b"")) == f"blake3:{EMPTY}"


def test_right_bytes_pass_and_others_name_both_digests() -> None:
    check_digest(memoryview(b"data"), digest_of(b"data"), "it")
    with pytest.raises(DigestMismatch, match="it") as raised:
        check_digest(b"", digest_of(b"data"), "it")
    assert raised.value.actual == f"blake3:{EMPTY}"
    assert raised.value.expected == printable(digest_of(b"data"))
