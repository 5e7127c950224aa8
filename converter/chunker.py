"""Cut the streams of a data region into chunks, content-defined.

The cut points are part of the format: `fastcdc` 1.7.0 with 16/64/256 KiB, held
by golden vectors in tests/unit, whether the package cuts or `converter/gear`.  A cut
depends on the bytes since the cut before it alone, so a stream may be cut window by
window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from converter.gear import fastcdc_gear
from converter.order import Stream, padded
from converter.tree import Node
from store.format.chunkindex import BLOCK

try:
    from fastcdc.fastcdc_cy import fastcdc_cy as fastcdc
except ImportError:
    # Pythons without a wheel of the package, and a build of it without a compiler.
    fastcdc = fastcdc_gear  # type: ignore[assignment]  # a cut has the same two attributes

CHUNK_MIN = 16 << 10
CHUNK_AVERAGE = 64 << 10
CHUNK_MAX = 256 << 10
WINDOW = 4 << 20
"""Plain bytes in memory at a time: 8 MiB fall out of the processor's cache and cost 13 %."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The next bytes of a data region: a chunk's plain bytes, or a hole of ``size``."""

    size: int
    plain: bytes | None


def cut(stream: Stream) -> Iterator[Piece]:
    """Yield pieces that tile the stream, in order."""
    runs = _runs(stream)
    for hole, pieces in runs:
        if hole:
            yield Piece(hole, None)
        else:
            yield from _cut_run(pieces)


def _cut_run(pieces: Iterator[bytes]) -> Iterator[Piece]:
    """Yield the chunks of the bytes that ``pieces`` join to."""
    data = b""
    ended = False
    while not ended or data:
        parts = [data]
        size = len(data)
        while not ended and size < WINDOW:
            piece = next(pieces, None)
            if piece is None:
                ended = True
            else:
                parts.append(piece)
                size += len(piece)
        data = b"".join(parts) if len(parts) > 1 else data
        at = 0
        for found in fastcdc(data, CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX):
            # A chunk that could have grown past the window is cut again with more bytes.
            if not ended and found.offset + CHUNK_MAX > len(data):
                break
            at = found.offset + found.length
            yield Piece(found.length, data[found.offset : at])
        data = data[at:]


def _runs(stream: Stream) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Yield a hole's size, or 0 and the bytes up to the next hole or the end.

    The bytes must be used up before the next run is asked for.
    """
    extents = [extent for file in stream.files for extent in _extents(file)]
    at = 0
    while at < len(extents):
        file, start, end = extents[at]
        if file is None:
            yield end - start, iter(())
            at += 1
            continue
        first = at
        while at < len(extents) and extents[at][0] is not None:
            at += 1
        yield 0, _bytes_of(extents[first:at])


def _extents(file: Node) -> list[tuple[Node | None, int, int]]:
    """Return the runs of a file, padded to blocks: (file, start, end) data, (None, …) hole.

    Only whole blocks of a hole stay holes.
    """
    size = padded(file.content.size)
    extents: list[tuple[Node | None, int, int]] = []
    at = 0
    for segment in file.content.segments:
        start = max(segment.offset // BLOCK * BLOCK, at)
        end = min(padded(segment.offset + segment.size), size)
        if start > at:
            extents.append((None, at, start))
        if end > start:
            if extents and extents[-1][0] is not None and extents[-1][2] == start:
                start = extents.pop()[1]
            extents.append((file, start, end))
            at = end
    if at < size:
        extents.append((None, at, size))
    return extents


def _bytes_of(extents: list[tuple[Node | None, int, int]]) -> Iterator[bytes]:
    for file, start, end in extents:
        if file is None:
            continue
        for at in range(start, end, WINDOW):
            size = min(WINDOW, end - at)
            data = file.content.pread(at, size)
            yield data
            if len(data) < size:
                yield bytes(size - len(data))
