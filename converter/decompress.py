"""Turn stored bytes into plain ones, in a stream and within bounded memory.

What a layer is compressed with is told by its first bytes, not by its media
type: engines do the same, and archives in the wild lie.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import zstandard

from store.errors import FormatError

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# A frame a reader skips, RFC 8878 section 3.1.2: its low four bits are free.
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"

# The most plain bytes handed on at once.
_PIECE = 1 << 20

# zlib leaves what follows a gzip member as a copy; files of many members
# (eStargz has one for each file) would be copied over and over if this were large.
_GZIP_FEED = 64 << 10

# A zstd block of 4 stored bytes can hold 128 KiB of plain ones, and one call gives
# back all that its input holds: 2 KiB in is 64 MiB out at most.
_ZSTD_FEED = 2 << 10

# zstd's own limit for reading without being asked to use more memory.
_ZSTD_WINDOW = 128 << 20


def compression_of(head: bytes) -> str:
    """Return ``gzip``, ``zstd`` or ``none`` for bytes that start with ``head`` (four or more)."""
    if head[:2] == _GZIP_MAGIC:
        return "gzip"
    if head[:4] == _ZSTD_MAGIC or (head[1:4] == _ZSTD_SKIPPABLE and head[0] & 0xF0 == 0x50):
        return "zstd"
    return "none"


def iter_plain(stored: Iterator[bytes], what: str) -> Iterator[bytes]:
    """Yield the plain bytes of a gzip, zstd or uncompressed stream.

    ``what`` names the stream in errors.  Memory is bounded whatever the stream
    holds: pieces are at most 64 MiB, and of gzip at most 1 MiB.

    Raises:
        FormatError: the stream is damaged or ends early; the offset is one of stored bytes.

    """
    first = next(stored, b"")
    while len(first) < 4:
        more = next(stored, b"")
        if not more:
            break
        first += more
    kind = compression_of(first)
    if kind == "gzip":
        yield from _iter_gunzip(first, stored, what)
    elif kind == "zstd":
        yield from _iter_unzstd(first, stored, what)
    else:
        if first:
            yield first
        yield from stored


def _feed(first: bytes, stored: Iterator[bytes], size: int) -> Iterator[bytes]:
    for piece in _chain(first, stored):
        if len(piece) <= size:
            yield piece
            continue
        for at in range(0, len(piece), size):
            yield piece[at : at + size]


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _iter_gunzip(first: bytes, stored: Iterator[bytes], what: str) -> Iterator[bytes]:
    member = zlib.decompressobj(wbits=31)
    consumed = 0
    for data in _feed(first, stored, _GZIP_FEED):
        rest = data
        while rest:
            if member.eof:
                member = zlib.decompressobj(wbits=31)
            try:
                plain = member.decompress(rest, _PIECE)
            except zlib.error as error:
                at = consumed + len(data) - len(rest)
                raise FormatError(
                    what, at, f"the gzip stream is damaged ({error}); fetch it again"
                ) from error
            if plain:
                yield plain
            rest = member.unused_data if member.eof else member.unconsumed_tail
        consumed += len(data)
    # All input is used up, but the last call may have been cut at _PIECE.
    while not member.eof:
        plain = member.decompress(b"", _PIECE)
        if not plain:
            break
        yield plain
    if not member.eof:
        raise FormatError(what, consumed, "the gzip stream ends early; fetch it again")


def _iter_unzstd(first: bytes, stored: Iterator[bytes], what: str) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    frame = decompressor.decompressobj()
    consumed = 0
    begun = False
    for data in _feed(first, stored, _ZSTD_FEED):
        rest = data
        while rest:
            if frame.eof:
                frame = decompressor.decompressobj()
            try:
                plain = frame.decompress(rest)
            except zstandard.ZstdError as error:
                at = consumed + len(data) - len(rest)
                raise FormatError(
                    what, at, f"the zstd stream is damaged ({error}); fetch it again"
                ) from error
            begun = True
            if plain:
                yield plain
            rest = frame.unused_data if frame.eof else b""
        consumed += len(data)
    if begun and not frame.eof:
        raise FormatError(what, consumed, "the zstd stream ends early; fetch it again")
