"""Which files of an image reads of its pages are of."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from converter.bootview import BootView
from converter.contents import read_files
from store.format.chunkindex import BLOCK

METADATA = b"(metadata)"
"""In place of a path: the bootstrap."""


@dataclass(slots=True)
class Touched:
    """A file that is read; sizes are bytes."""

    path: bytes
    """One of its names, from the root; `METADATA` for the bootstrap."""
    size: int
    read: int = 0
    """Of whole pages, so it may be more than the file has."""


def touched_files(view: BootView, reads: Iterable[tuple[int, int]]) -> list[Touched]:
    """Return the files that ``reads`` (first page of ``image.erofs``, pages) touch.

    In the order in which each is first touched.  Pages beyond the image are of none.

    Raises:
        FormatError, IntegrityError: the image is damaged.

    """
    index = view.index
    files = read_files(view)
    starts = [file.start for file in files]
    metadata = Touched(METADATA, index.bootstrap_size)
    found: dict[int, Touched] = {}
    for first, pages in reads:
        at = first * BLOCK
        end = min(at + pages * BLOCK, index.data_start + index.data_size)
        if at < index.bootstrap_size:
            found.setdefault(-1, metadata).read += min(end, index.bootstrap_size) - at
        at = max(at - index.data_start, 0)
        end -= index.data_start
        number = max(bisect_right(starts, at) - 1, 0)
        while number < len(files) and files[number].start < end:
            file = files[number]
            # A file ends where the block does that its last byte is in.
            until = file.start + -(-file.plain // BLOCK) * BLOCK
            size = min(end, until) - max(at, file.start)
            if size > 0:
                found.setdefault(number, Touched(file.path, file.plain)).read += size
            number += 1
    return list(found.values())
