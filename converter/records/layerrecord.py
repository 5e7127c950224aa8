"""Layer records: a layer's tar with gaps where its files' contents are.

What a record gives goes through the same reader and makes the same tree as the layer did.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from struct import Struct

from converter.records.recordfile import RecordFile, write_record
from converter.spool import FileBlob, Spool
from store.errors import FormatError, SizeMismatch

MAGIC = b"bootfsL1"
# plain size of the layer, number of gaps
_HEAD = Struct("<QQ")
_GAP_BYTES = 16
_PIECE = 1 << 20

KEPT_LIMIT = 512 << 20
"""Bytes of tar headers of one layer, some 400,000 files; a layer with more is not recorded."""


def write_layer_record(path: Path, diff_id: str, plain: FileBlob, runs: array[int]) -> bool:
    """Record a verified layer; whether it is one that can be.

    ``runs`` holds offset and size in ``plain`` of each run of a file's bytes, ascending.

    Raises:
        OSError: the record cannot be written.

    """
    gaps = _join(runs)
    if plain.size - sum(gaps[1::2]) > KEPT_LIMIT:
        return False
    head = _HEAD.pack(plain.size, len(gaps) // 2) + diff_id.encode()
    kept = _gather(_iter_kept(plain, gaps))
    write_record(path, MAGIC, head, chain((gaps.tobytes(),), kept))
    return True


def _join(runs: array[int]) -> array[int]:
    """Return the runs without those of no bytes, neighbours joined."""
    gaps: array[int] = array("Q")
    for at in range(0, len(runs), 2):
        start, size = runs[at], runs[at + 1]
        if gaps and gaps[-2] + gaps[-1] == start:
            gaps[-1] += size
        elif size:
            gaps.extend((start, size))
    return gaps


def _iter_kept(plain: FileBlob, gaps: array[int]) -> Iterator[bytes]:
    """Yield what lies before, between and behind the gaps."""
    at = 0
    ends = chain(zip(gaps[::2], gaps[1::2], strict=True), ((plain.size, 0),))
    for start, size in ends:
        for piece in range(at, start, _PIECE):
            yield plain.pread(piece, min(_PIECE, start - piece))
        at = start + size


def _gather(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) >= _PIECE:
            yield bytes(held)
            held.clear()
    yield bytes(held)


class RecordedLayer:
    """A layer's plain tar of which a record is at hand; contents come from elsewhere."""

    def __init__(
        self,
        name: str,
        size: int,
        kept: FileBlob,
        gaps: array[int],
        read_contents: Callable[[int, int], bytes],
    ) -> None:
        self.name = name
        self.size = size
        """Bytes of the whole plain tar."""
        self._kept = kept
        self._read_contents = read_contents
        # Where each stretch of kept bytes begins and ends in the tar, and begins in ``kept``.
        self._starts: array[int] = array("Q", [0])
        self._ends: array[int] = array("Q")
        self._kept_starts: array[int] = array("Q", [0])
        for start, gap in zip(gaps[::2], gaps[1::2], strict=True):
            self._ends.append(start)
            self._kept_starts.append(self._kept_starts[-1] + start - self._starts[-1])
            self._starts.append(start + gap)
        self._ends.append(size)

    def pread(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``.

        Raises:
            SizeMismatch: the layer ends before that.
            BootfsError: contents cannot be had.

        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise SizeMismatch(self.name, offset + size, self.size)
        stretch = bisect_right(self._starts, offset) - 1
        start = self._starts[stretch]
        if offset + size <= self._ends[stretch]:
            return self._kept.pread(self._kept_starts[stretch] + offset - start, size)
        return self._read_contents(offset, size)


def open_layer_record(
    path: Path, diff_id: str, spool: Spool, read_contents: Callable[[int, int], bytes]
) -> RecordedLayer:
    """Return the layer that a record is of, its headers copied into ``spool``.

    ``read_contents`` is asked for ranges of the plain tar that the record has not.

    Raises:
        OSError: there is no record, or it cannot be read.
        FormatError: it is damaged, or of another layer.
        StorageFull: the spool has no room for it.

    """
    file = RecordFile(path, MAGIC)
    try:
        file.check()
        if len(file.head) < _HEAD.size or file.head[_HEAD.size :] != diff_id.encode():
            raise file.damaged("it is of another layer")
        size, count = _HEAD.unpack_from(file.head)
        gaps, kept = _read_body(file, count, spool)
    finally:
        file.close()
    held = sum(gaps[1::2]) + kept.size
    if held != size or not _are_ascending(gaps, size):
        raise FormatError(str(path), 0, "its gaps are not those of a layer; the record is not used")
    return RecordedLayer(f"record of layer {diff_id}", size, kept, gaps, read_contents)


def _read_body(file: RecordFile, count: int, spool: Spool) -> tuple[array[int], FileBlob]:
    wanted = count * _GAP_BYTES
    numbers = bytearray()
    with spool.writing(str(file.path)) as kept:
        for piece in file.iter_body():
            taken = min(wanted - len(numbers), len(piece))
            numbers += piece[:taken]
            kept.write(piece[taken:])
            if max(kept.size, len(numbers)) > KEPT_LIMIT:
                raise file.damaged("it is too long")
    if len(numbers) < wanted:
        raise file.damaged("cut short")
    return array("Q", bytes(numbers)), kept.blob


def _are_ascending(gaps: array[int], size: int) -> bool:
    at = 0
    for start, gap in zip(gaps[::2], gaps[1::2], strict=True):
        if start < at or not gap:
            return False
        at = start + gap
    return at <= size
