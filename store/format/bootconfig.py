"""The boot config: what the init must know of an image before anything is mounted.

Implements docs/format.md, "Boot config, version 1": a header and tagged fields.
Not JSON, because importing a JSON parser is paid at every container start.
Nothing here does I/O.
"""

from __future__ import annotations

from struct import Struct

from store.errors import FormatError, UnsupportedVersion
from store.format.digest import DIGEST_SIZE, digest_of

MAGIC = b"bootfsBC"
VERSION = 1

# ------  ----  ------------------------------
# offset  size  header field (little-endian)
# ------  ----  ------------------------------
#      0     8  magic "bootfsBC"
#      8     2  version, 1
#     10     2  zero
#     12     4  size of the fields
#     16    32  BLAKE3 digest of the fields
# ------  ----  ------------------------------
HEADER = Struct("<8sHHI32s")

# ------  ----  ------------------------------
# offset  size  field (no padding between)
# ------  ----  ------------------------------
#      0     2  tag
#      2     2  zero
#      4     4  size of the value
#      8     …  value
# ------  ----  ------------------------------
FIELD = Struct("<HHI")

TAG_RELEASE = 1
TAG_SOURCE = 2
TAG_CHUNK_INDEX = 3
TAG_ENTRYPOINT = 4
TAG_BLOB_STORE = 5
TAG_VOLUME = 6


class BootConfig:
    """Values of a boot config, as bytes: they become paths and arguments as they stand."""

    __slots__ = ("blob_store", "chunk_index", "entrypoint", "release", "source", "volumes")

    def __init__(
        self,
        release: bytes,
        source: bytes,
        chunk_index: bytes,
        entrypoint: list[bytes],
        blob_store: bytes = b"",
        volumes: list[bytes] | None = None,
    ) -> None:
        self.release = release
        """Release of bootfs that converted the image."""
        self.source = source
        """Reference of the source image, for messages."""
        self.chunk_index = chunk_index
        """Raw BLAKE3 digest of the chunk index: the root of all verification."""
        self.entrypoint = entrypoint
        """The source image's ENTRYPOINT; empty when it has none."""
        self.blob_store = blob_store
        """URL of the store when the container is given none; empty when not baked in."""
        self.volumes = volumes or []
        """Paths that the image declares as VOLUME."""


def encode_boot_config(config: BootConfig) -> bytes:
    """Return the bytes of a boot config."""
    fields = [
        (TAG_RELEASE, config.release),
        (TAG_SOURCE, config.source),
        (TAG_CHUNK_INDEX, config.chunk_index),
        *((TAG_ENTRYPOINT, argument) for argument in config.entrypoint),
        *([(TAG_BLOB_STORE, config.blob_store)] if config.blob_store else []),
        *((TAG_VOLUME, path) for path in config.volumes),
    ]
    body = b"".join(FIELD.pack(tag, 0, len(value)) + value for tag, value in fields)
    return HEADER.pack(MAGIC, VERSION, 0, len(body), digest_of(body)) + body


def parse_boot_config(data: bytes) -> BootConfig:
    """Return the boot config that ``data`` is, or nothing of it.

    Raises:
        UnsupportedVersion: a version this release does not read.
        FormatError: damaged, or a field is missing, doubled or unknown.

    """
    if len(data) < HEADER.size or data[:8] != MAGIC:
        raise FormatError("boot config", 0, "no magic; not a boot config, or cut short")
    _, version, zero, size, digest = HEADER.unpack_from(data)
    if version != VERSION:
        raise UnsupportedVersion("boot config", 8, f"version {version}, this reads {VERSION}")
    if zero or len(data) != HEADER.size + size:
        raise FormatError(
            "boot config", 10, f"{len(data) - HEADER.size} bytes of fields, not {size}"
        )
    if digest_of(data[HEADER.size :]) != digest:
        raise FormatError("boot config", 16, "digest mismatch; the boot config is damaged")
    single: dict[int, bytes] = {}
    lists: dict[int, list[bytes]] = {TAG_ENTRYPOINT: [], TAG_VOLUME: []}
    at = HEADER.size
    while at < len(data):
        if at + FIELD.size > len(data):
            raise FormatError("boot config", at, "field cut short")
        tag, zero, size = FIELD.unpack_from(data, at)
        value = data[at + FIELD.size : at + FIELD.size + size]
        if zero or len(value) != size:
            raise FormatError("boot config", at, f"field {tag} cut short")
        if tag in lists:
            lists[tag].append(value)
        elif tag in single or not TAG_RELEASE <= tag <= TAG_BLOB_STORE:
            raise FormatError("boot config", at, f"field {tag} is unknown or stands twice")
        else:
            single[tag] = value
        at += FIELD.size + size
    for tag in (TAG_RELEASE, TAG_SOURCE, TAG_CHUNK_INDEX):
        if tag not in single:
            raise FormatError("boot config", HEADER.size, f"field {tag} is missing")
    if len(single[TAG_CHUNK_INDEX]) != DIGEST_SIZE:
        raise FormatError("boot config", HEADER.size, "the chunk index's digest has a wrong size")
    return BootConfig(
        single[TAG_RELEASE],
        single[TAG_SOURCE],
        single[TAG_CHUNK_INDEX],
        lists[TAG_ENTRYPOINT],
        single.get(TAG_BLOB_STORE, b""),
        lists[TAG_VOLUME],
    )
