"""Packs: which chunks one holds, and where (docs/format.md, "Pack, versions 1 and 2").

A pack is a header, chunk bodies back to back, a table of them, a fixed footer.
Table and footer come last so that a pack is written in one pass, and can be
understood from its tail alone.  Nothing here does I/O.
"""

from __future__ import annotations

from struct import Struct

from store.errors import FormatError, UnsupportedVersion
from store.format.digest import digest_of

CHUNK_LIMIT = 1 << 20
"""No chunk is larger than this, plain or stored; a parser refuses one that claims to be."""

FILTERED = b"\1"
"""What a body of code that went through the branch filter begins with; a zstd frame follows."""

MAGIC = b"bootfsPK"
VERSION = 1
WITH_FILTERED = 2
"""Version of a pack with filtered bodies: the same layout, which older releases must refuse."""
READABLE = (VERSION, WITH_FILTERED)

# ------  ----  ---------------------------------------
# offset  size  header field (little-endian)
# ------  ----  ---------------------------------------
#      0     8  magic "bootfsPK"
#      8     2  version, 1 or 2
#     10     6  zero
# ------  ----  ---------------------------------------
HEADER = Struct("<8sH6x")

# ------  ----  ---------------------------------------
# offset  size  table entry field
# ------  ----  ---------------------------------------
#      0    32  BLAKE3 digest of the chunk's plain bytes
#     32     4  stored size
#     36     4  plain size; equal to stored: not compressed
# ------  ----  ---------------------------------------
ENTRY = Struct("<32sII")

# ------  ----  ---------------------------------------
# offset  size  footer field
# ------  ----  ---------------------------------------
#      0     8  offset of the table in the pack
#      8     4  number of entries
#     12     2  version, 1 or 2
#     14     2  zero
#     16    32  BLAKE3 digest of the table
#     48     8  zero
#     56     8  magic "bootfsPK"
# ------  ----  ---------------------------------------
FOOTER = Struct("<QIHH32sQ8s")


class PackEntry:
    """One chunk's place in a pack; sizes and offset are bytes."""

    __slots__ = ("digest", "offset", "plain_size", "stored_size")

    def __init__(self, digest: bytes, offset: int, stored_size: int, plain_size: int) -> None:
        self.digest = digest
        self.offset = offset
        self.stored_size = stored_size
        self.plain_size = plain_size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackEntry) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]  # compared by value, and mutable

    def __repr__(self) -> str:
        return (
            f"PackEntry({self.digest.hex()}, offset={self.offset}, "
            f"stored={self.stored_size}, plain={self.plain_size})"
        )


def encode_header(version: int = VERSION) -> bytes:
    """Return the first bytes of every pack of a version."""
    return HEADER.pack(MAGIC, version)


def encode_tail(entries: list[PackEntry], version: int = VERSION) -> bytes:
    """Return table and footer of a pack whose bodies are ``entries``, in body order."""
    table = b"".join(ENTRY.pack(e.digest, e.stored_size, e.plain_size) for e in entries)
    last = entries[-1]
    table_at = last.offset + last.stored_size
    return table + FOOTER.pack(table_at, len(entries), version, 0, digest_of(table), 0, MAGIC)


def parse_footer(footer: bytes, pack_size: int) -> tuple[int, int, bytes]:
    """Return offset, size and digest of the table, from a pack's last `FOOTER.size` bytes.

    Raises:
        UnsupportedVersion: a version this release does not read.
        FormatError: not the footer of a pack of ``pack_size`` bytes.

    """
    at = pack_size - FOOTER.size
    if at < HEADER.size or len(footer) != FOOTER.size:
        raise FormatError("pack", max(at, 0), f"{pack_size} bytes are too few for a pack")
    table_at, count, version, zero, digest, zero2, magic = FOOTER.unpack(footer)
    if magic != MAGIC:
        raise FormatError("pack footer", at + 56, "no magic; not a pack, or cut short")
    if version not in READABLE:
        raise UnsupportedVersion("pack footer", at + 12, f"version {version}, this reads 1 and 2")
    size = count * ENTRY.size
    if zero or zero2 or not count or table_at < HEADER.size or table_at + size != at:
        raise FormatError("pack footer", at, f"table of {count} entries misplaced at {table_at}")
    return table_at, size, digest


def version_of(footer: bytes) -> int:
    """Return the version of a pack whose footer `parse_footer` has taken."""
    version: int = FOOTER.unpack(footer)[2]
    return version


def parse_table(table: bytes, digest: bytes, table_at: int) -> list[PackEntry]:
    """Return the entries of a pack, in body order.

    Whole or nothing: the bodies lie back to back between header and table, so a
    caller may ask for any entry's range as it stands.

    Raises:
        FormatError: the table is damaged, or a body is where no body can be.

    """
    if len(table) % ENTRY.size:
        raise FormatError("pack table", table_at, f"{len(table)} bytes are not whole entries")
    if digest_of(table) != digest:
        raise FormatError("pack table", table_at, "digest mismatch; the pack is damaged")
    entries: list[PackEntry] = []
    offset = HEADER.size
    for name, stored, plain in ENTRY.iter_unpack(table):
        if not 0 < stored <= plain <= CHUNK_LIMIT:
            at = table_at + len(entries) * ENTRY.size
            raise FormatError(
                "pack table", at + 32, f"chunk of {stored} stored, {plain} plain bytes"
            )
        entries.append(PackEntry(name, offset, stored, plain))
        offset += stored
    if offset != table_at:
        raise FormatError("pack table", table_at, f"bodies end at {offset}, not at the table")
    return entries


def parse_header(header: bytes) -> None:
    """Return when ``header`` begins a pack this release reads.

    Raises:
        UnsupportedVersion: a version this release does not read.
        FormatError: not a pack.

    """
    if len(header) != HEADER.size or header[:8] != MAGIC or any(header[10:]):
        raise FormatError("pack header", 0, "no magic; not a pack")
    (_, version) = HEADER.unpack(header)
    if version not in READABLE:
        raise UnsupportedVersion("pack header", 8, f"version {version}, this reads 1 and 2")
