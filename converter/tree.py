"""The merged file system of an image, in memory, as the container would see it."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, cast


class Blob(Protocol):
    """Bytes that can be read at any place: a layer's plain tar, a file, memory."""

    def pread(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``.

        Raises:
            SizeMismatch: the blob ends before that.

        """


class NamedBlob(Blob, Protocol):
    """A blob that messages can name."""

    name: str
    size: int


# Not frozen: that triples the time of making one, and there is one for each file.
@dataclass(slots=True, unsafe_hash=True)
class Segment:
    """A run of a file's bytes that lies in a blob; between segments a file is a hole.

    Never changed, as `Content` is not: nodes share them.
    """

    offset: int
    """Where the run starts in the file."""
    size: int
    blob: Blob
    blob_offset: int


@dataclass(slots=True, unsafe_hash=True)
class Content:
    """The bytes of a regular file: segments in order, not overlapping, holes between them."""

    size: int
    segments: tuple[Segment, ...] = ()

    def pread(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``, holes as zeros, fewer at the end of the file."""
        size = max(0, min(size, self.size - offset))
        for segment in self.segments:
            # Nearly every read lies in one segment: then its bytes need no second copy.
            if segment.offset <= offset and offset + size <= segment.offset + segment.size:
                return segment.blob.pread(segment.blob_offset + offset - segment.offset, size)
        out = bytearray(size)
        for segment in self.segments:
            start = max(offset, segment.offset)
            end = min(offset + size, segment.offset + segment.size)
            if start < end:
                at = segment.blob_offset + start - segment.offset
                out[start - offset : end - offset] = segment.blob.pread(at, end - start)
        return bytes(out)


EMPTY = Content(0)
_NO_XATTRS: Mapping[bytes, bytes] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class Node:
    """One inode.  Hard links are one `Node` under several names.

    ``children`` is empty and meaningless unless the node is a directory, as
    ``content``, ``target`` and ``device`` are unless it is a regular file, a
    symbolic link, a device node.  A tree has as many nodes as the image has files:
    what most of them lack is one object for all, and cannot be changed in place.
    """

    mode: int
    """Kind and permission bits, as ``st_mode``."""
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    """Nanoseconds since 1970, negative before."""
    xattrs: Mapping[bytes, bytes] = field(default_factory=lambda: _NO_XATTRS)
    """Full name (``security.capability``) to value."""
    children: dict[bytes, Node] = field(default_factory=lambda: _NO_CHILDREN)
    content: Content = EMPTY
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    """Major and minor number."""
    layer: int = 0
    """Which layer the entry stands in that made the node, and so its bytes; 0 the lowest."""

    def __post_init__(self) -> None:
        if self.children is _NO_CHILDREN and stat.S_ISDIR(self.mode):
            self.children = {}

    @property
    def kind(self) -> int:
        """The kind bits of the mode (``stat.S_IFREG`` and so on)."""
        return stat.S_IFMT(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether the node is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        """Whether the node is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether the node is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_device(self) -> bool:
        """Whether the node is a character or block device."""
        return stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode)


_NO_CHILDREN: dict[bytes, Node] = cast("dict[bytes, Node]", MappingProxyType({}))


def empty_root() -> Node:
    """Return the root of an image without layers: a directory 0755 of root's."""
    return Node(mode=stat.S_IFDIR | 0o755)
