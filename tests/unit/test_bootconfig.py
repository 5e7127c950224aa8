import pytest

from store.errors import FormatError, UnsupportedVersion
from store.format.bootconfig import (
    FIELD,
    HEADER,
    TAG_BLOB_STORE,
    TAG_CHUNK_INDEX,
    TAG_ENTRYPOINT,
    TAG_RELEASE,
    TAG_SOURCE,
    TAG_VOLUME,
    BootConfig,
    encode_boot_config,
    parse_boot_config,
)
from store.format.digest import digest_of

DIGEST = digest_of(b"chunk index")


def encoded(*fields: tuple[int, bytes], version: int = 1, zero: int = 0) -> bytes:
    body = b"".join(FIELD.pack(tag, zero, len(value)) + value for tag, value in fields)
    return HEADER.pack(b"bootfsBC", version, 0, len(body), digest_of(body)) + body


NEEDED = ((TAG_RELEASE, b"1"), (TAG_SOURCE, b"image"), (TAG_CHUNK_INDEX, DIGEST))


def test_all_values_come_back() -> None:
    config = BootConfig(b"1", b"im\xffage", DIGEST, [b"/bin/sh", b""], b"http://x", [b"/data"])
    parsed = parse_boot_config(encode_boot_config(config))
    for name in BootConfig.__slots__:
        assert getattr(parsed, name) == getattr(config, name)


def test_what_is_left_out_is_empty() -> None:
    parsed = parse_boot_config(encoded(*NEEDED))
    assert (parsed.entrypoint, parsed.blob_store, parsed.volumes) == ([], b"", [])


@pytest.mark.parametrize(
    "fields",
    [
        (),
        NEEDED[:2],
        NEEDED[1:],
        (*NEEDED, (TAG_RELEASE, b"2")),
        (*NEEDED, (TAG_BLOB_STORE, b"a"), (TAG_BLOB_STORE, b"b")),
        (*NEEDED, (TAG_VOLUME + 1, b"")),
        (*NEEDED, (0, b"")),
        (*NEEDED[:2], (TAG_CHUNK_INDEX, DIGEST[1:])),
    ],
)
def test_missing_doubled_and_unknown_fields_are_refused(
    fields: tuple[tuple[int, bytes], ...],
) -> None:
    with pytest.raises(FormatError):
        parse_boot_config(encoded(*fields))


def test_reserved_bytes_that_are_not_zero_are_refused() -> None:
    with pytest.raises(FormatError):
        parse_boot_config(encoded(*NEEDED, zero=1))


def test_a_later_version_is_named_as_such() -> None:
    with pytest.raises(UnsupportedVersion, match="version 7"):
        parse_boot_config(encoded(*NEEDED, version=7))


def test_a_field_that_reaches_over_the_end_is_refused() -> None:
    body = FIELD.pack(TAG_ENTRYPOINT, 0, 100) + b"short"
    data = HEADER.pack(b"bootfsBC", 1, 0, len(body), digest_of(body)) + body
    with pytest.raises(FormatError, match="cut short"):
        parse_boot_config(data)
