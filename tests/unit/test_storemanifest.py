import json

import pytest

from store.errors import FormatError, UnsupportedVersion
from store.write.manifest import encode_manifest, parse_manifest

INDEX = bytes(range(32))
PACKS = [(bytes([7]) * 32, 1234), (bytes([9]) * 32, 1)]


def changed(**values: object) -> bytes:
    return json.dumps(json.loads(encode_manifest(INDEX, PACKS)) | values).encode()


def test_values_come_back() -> None:
    assert parse_manifest(encode_manifest(INDEX, PACKS)) == (INDEX, PACKS)


def test_equal_values_give_equal_bytes() -> None:
    assert encode_manifest(INDEX, PACKS) == encode_manifest(INDEX, list(PACKS))


def test_a_later_version_is_named_as_such() -> None:
    with pytest.raises(UnsupportedVersion):
        parse_manifest(changed(version=2))


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "other"},
        {"version": True},
        {"version": None},
        {"chunkIndex": "blake3:" + "0" * 63},
        {"chunkIndex": "blake3:" + "0" * 62 + "  "},
        {"chunkIndex": "blake3:" + "G" * 64},
        {"chunkIndex": "sha256:" + "0" * 64},
        {"chunkIndex": 5},
        {"packs": None},
        {"packs": {"digest": 1}},
        {"packs": [{"digest": "sha256:" + "0" * 64}]},
        {"packs": [{"digest": "sha256:" + "0" * 64, "size": -1}]},
        {"packs": [{"digest": "sha256:" + "0" * 64, "size": 0}]},
        {"packs": [{"digest": "sha256:" + "0" * 64, "size": 1.5}]},
        {"packs": [{"digest": "sha256:" + "0" * 64, "size": float("inf")}]},
        {"packs": [{"digest": "sha256:" + "0" * 64, "size": True}]},
        {"packs": ["text"]},
    ],
    ids=str,
)
def test_values_that_are_none_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        parse_manifest(changed(**values))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_manifest(data)
