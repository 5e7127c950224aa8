"""The file that a record is: a header with the digest of all else, and a compressed body.

No part of the format of a store: another release may write another, and reads this one as none.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import Struct
from typing import BinaryIO

import zstandard
from blake3 import blake3

from store.errors import FormatError

# magic, digest of all that follows, size of the head
_HEADER = Struct("<8s32sI")
HEAD_LIMIT = 1 << 20
_PIECE = 1 << 20
_LEVEL = 1
"""A layer of 1.1 GB and 36,000 files then takes 0.9 MB, mostly zeros and repetition."""
_WINDOW = 8 << 20


def write_record(path: Path, magic: bytes, head: bytes, pieces: Iterable[bytes]) -> None:
    """Write a record under its name, whole or not at all; it need not outlive a power cut.

    Raises:
        OSError: it cannot be written.

    """
    fd, part = tempfile.mkstemp(dir=path.parent, prefix="new-")
    try:
        with os.fdopen(fd, "w+b") as file:
            file.write(_HEADER.pack(magic, bytes(32), len(head)))
            digest = blake3(_HEADER.pack(magic, bytes(32), len(head)) + head)
            file.write(head)
            compressor = zstandard.ZstdCompressor(_LEVEL).compressobj()
            for piece in pieces:
                body = compressor.compress(piece)
                digest.update(body)
                file.write(body)
            body = compressor.flush()
            digest.update(body)
            file.write(body)
            file.seek(0)
            file.write(_HEADER.pack(magic, digest.digest(), len(head)))
        Path(part).rename(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


class RecordFile:
    """A record that is open; to be closed.  What it gives is verified only by `check`."""

    def __init__(self, path: Path, magic: bytes) -> None:
        """Open the record at ``path``.

        Raises:
            OSError: it is not there, or may not be read.
            FormatError: it is no record of this kind.

        """
        self.path = path
        self._file: BinaryIO = path.open("rb")
        try:
            header = self._file.read(_HEADER.size)
            if len(header) != _HEADER.size or header[:8] != magic:
                raise self.damaged("not a record of this release")
            _, self._digest, size = _HEADER.unpack(header)
            if size > HEAD_LIMIT:
                raise self.damaged(f"a head of {size:,} bytes")
            self._hashed = _HEADER.pack(magic, bytes(32), size)
            self.head = self._file.read(size)
            if len(self.head) != size:
                raise self.damaged("cut short")
        except BaseException:
            self._file.close()
            raise
        self._body_at = _HEADER.size + size

    def check(self) -> None:
        """Return when head and body are what was written.

        Raises:
            FormatError: they are not.
            OSError: it cannot be read.

        """
        digest = blake3(self._hashed + self.head)
        self._file.seek(self._body_at)
        while piece := self._file.read(_PIECE):
            digest.update(piece)
        if digest.digest() != self._digest:
            raise self.damaged("its digest is another")

    def iter_body(self) -> Iterator[bytes]:
        """Yield the plain body.

        Raises:
            FormatError: it is damaged.
            OSError: it cannot be read.

        """
        self._file.seek(self._body_at)
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        try:
            yield from decompressor.read_to_iter(self._file, write_size=_PIECE)
        except zstandard.ZstdError as error:
            raise self.damaged(str(error)) from error

    def damaged(self, problem: str) -> FormatError:
        """Return the error that says what is wrong with it."""
        return FormatError(str(self.path), 0, f"{problem}; the record is not used")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
