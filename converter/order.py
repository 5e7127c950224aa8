"""Where each file's bytes lie in the data region, and which of them are cut together.

Directories in path order; in each, the small files first, as one stream, then
every large file as a stream of its own.  A program reads neighbours together,
so neighbours share chunks; a large file is cut alone, so that it is found again
in another image wherever it stands there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from converter.tree import Node
from store.format.chunkindex import BLOCK

SMALL = 128 << 10
"""Files below this are cut in one stream per directory: 1,182 MB stored for an image
family, against 1,254 when the tar stream is cut as it comes (docs/decisions)."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Files laid one after the other from ``start`` in the data region, cut as one."""

    start: int
    size: int
    """Bytes in the region: every file padded to whole blocks."""
    files: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """The layout of a data region; ``extents`` maps each non-empty file to its offset."""

    streams: tuple[Stream, ...]
    extents: dict[Node, int]
    size: int


def padded(size: int) -> int:
    """Return ``size`` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def lay_out(root: Node) -> Region:
    """Return the data region of a tree.  A file with several names lies where the first is."""
    streams: list[Stream] = []
    extents: dict[Node, int] = {}
    at = 0

    def lay(files: list[Node]) -> None:
        nonlocal at
        start = at
        for file in files:
            extents[file] = at
            at += padded(file.content.size)
        streams.append(Stream(start, at - start, tuple(files)))

    for directory in iter_directories(root):
        small: list[Node] = []
        large: list[Node] = []
        seen: set[Node] = set()
        for _, node in sorted(directory.children.items()):
            if node.is_regular and node.content.size and node not in extents and node not in seen:
                seen.add(node)
                (small if node.content.size < SMALL else large).append(node)
        if small:
            lay(small)
        for file in large:
            lay([file])
    return Region(tuple(streams), extents, at)


def iter_directories(root: Node) -> Iterator[Node]:
    """Yield every directory, a parent before its children, in path order."""
    pending = [root]
    while pending:
        directory = pending.pop()
        yield directory
        pending.extend(
            node
            for _, node in sorted(directory.children.items(), reverse=True)
            if node.is_directory
        )
