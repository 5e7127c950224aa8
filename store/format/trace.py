"""Traces: what one start of an image read, as it happened.

Implements docs/format.md, "Trace, version 1".  Written by the daemon, an entry a read, so
a trace may end anywhere: what is whole of it counts.  Nothing here does I/O.
"""

from __future__ import annotations

from struct import Struct

from store.errors import FormatError, UnsupportedVersion

MAGIC = b"bootfsTR"
VERSION = 1
COMMAND_LIMIT = 4096
"""Bytes of a command that are kept."""
ENTRY_LIMIT = 1 << 16
"""Entries at most; starts make some thousands."""

# ------  ----  ------------------------------------------------
# offset  size  header field (little-endian)
# ------  ----  ------------------------------------------------
#      0     8  magic "bootfsTR"
#      8     2  version, 1
#     10     2  size of the command
#     12     4  zero
#     16     8  when it was begun: seconds since 1970
#     24    32  BLAKE3 digest of the chunk index of the image
# ------  ----  ------------------------------------------------
HEADER = Struct("<8sHHIQ32s")
# ------  ----  ------------------------------------------------
# offset  size  entry field
# ------  ----  ------------------------------------------------
#      0     4  milliseconds since the first read
#      4     4  first page of image.erofs
#      8     4  number of pages
# ------  ----  ------------------------------------------------
ENTRY = Struct("<III")
LIMIT = HEADER.size + COMMAND_LIMIT + ENTRY_LIMIT * ENTRY.size
"""No trace is larger."""


class Trace:
    """One start: its ``command``, and its ``reads`` as (milliseconds, first page, pages)."""

    __slots__ = ("begun_s", "command", "image", "reads")

    def __init__(
        self, image: bytes, command: list[bytes], begun_s: int, reads: list[tuple[int, int, int]]
    ) -> None:
        self.image = image
        """Raw digest of the chunk index."""
        self.command = command
        """Entrypoint and arguments, as many of them as are kept."""
        self.begun_s = begun_s
        """Seconds since 1970, by the clock of that machine."""
        self.reads = reads


def encode_command(command: list[bytes]) -> bytes:
    """Return a command as traces and profiles keep it: with zeros between, cut where it is long."""
    kept = b"\0".join(command)
    while len(kept) > COMMAND_LIMIT:
        kept = kept[:COMMAND_LIMIT].rpartition(b"\0")[0]
    return kept


def parse_command(kept: bytes) -> list[bytes]:
    """Return the words of a kept command."""
    return kept.split(b"\0") if kept else []


def encode_trace_head(image: bytes, command: list[bytes], begun_s: int) -> bytes:
    """Return what a trace begins with; entries follow."""
    kept = encode_command(command)
    return HEADER.pack(MAGIC, VERSION, len(kept), 0, begun_s, image) + kept


def parse_trace(data: bytes, where: str) -> Trace:
    """Return a trace; an entry that is cut off at its end does not count.

    Page numbers are not checked: only who has the chunk index can.

    Raises:
        UnsupportedVersion: a version this release does not read.
        FormatError: it is no trace.

    """
    if len(data) < HEADER.size or len(data) > LIMIT or data[:8] != MAGIC:
        raise FormatError(where, 0, "not a trace")
    _, version, size, _, begun_s, image = HEADER.unpack_from(data)
    if version != VERSION:
        raise UnsupportedVersion(where, 8, f"version {version}")
    start = HEADER.size + size
    if size > COMMAND_LIMIT or start > len(data):
        raise FormatError(where, 10, "a command that does not end")
    count = (len(data) - start) // ENTRY.size
    reads = list(ENTRY.iter_unpack(data[start : start + count * ENTRY.size]))
    return Trace(image, parse_command(data[HEADER.size : start]), begun_s, reads)
