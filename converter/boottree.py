"""The tree of a boot image as the tree of an image in memory, its contents still in the store."""

from __future__ import annotations

import stat
from bisect import bisect_right

from converter.bootwalk import iter_paths
from converter.tree import Content, Node, Segment
from store.errors import SizeMismatch
from store.format.chunkindex import HOLE, ChunkIndex
from store.format.erofs import Image, Inode
from store.read.image import ImageReader


class _Region:
    """The data region as a blob."""

    def __init__(self, reader: ImageReader) -> None:
        self._reader = reader

    def pread(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes of the data region; see `Blob`."""
        start = self._reader.index.data_start
        data = b"".join(self._reader.read(start + offset, size))
        if len(data) != size:
            raise SizeMismatch("data region", offset + size, offset + len(data))
        return data


def read_tree(image: Image, reader: ImageReader) -> Node:
    """Return the tree; contents are read through ``reader`` when somebody asks for them.

    The image's structure must have been checked.

    Raises:
        FormatError: the bootstrap is damaged.

    """
    region = _Region(reader)
    nodes: dict[int, Node] = {}
    directories: dict[bytes, Node] = {}
    root = None
    for path, inode in iter_paths(image):
        node = nodes.get(inode.nid)
        if node is None:
            node = nodes[inode.nid] = _node(image, inode, region, reader.index)
        if node.is_directory:
            directories[path.rstrip(b"/")] = node
        if root is None:
            root = node
            continue
        parent, _, name = path.rpartition(b"/")
        directories[parent].children[name] = node
    assert root is not None
    return root


def _node(image: Image, inode: Inode, region: _Region, index: ChunkIndex) -> Node:
    node = Node(
        mode=inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        mtime_ns=inode.mtime_s * 10**9 + inode.mtime_ns,
        device=inode.rdev,
    )
    xattrs = image.xattrs(inode)
    if xattrs:
        node.xattrs = xattrs
    if stat.S_ISLNK(inode.mode):
        node.target = image.readlink(inode)
    elif stat.S_ISREG(inode.mode) and inode.size:
        node.content = _content(inode, region, index)
    return node


def _content(inode: Inode, region: _Region, index: ChunkIndex) -> Content:
    """Return a file's contents; places without a chunk are its holes."""
    start = inode.data_offset - index.data_start
    end = start + inode.size
    segments: list[Segment] = []
    place = bisect_right(index.starts, start) - 1
    at = start
    while at < end:
        until = min(end, index.starts[place + 1])
        if index.place_chunks[place] != HOLE:
            last = segments[-1] if segments else None
            if last is not None and last.offset + last.size == at - start:
                segments[-1] = Segment(
                    last.offset, last.size + until - at, region, last.blob_offset
                )
            else:
                segments.append(Segment(at - start, until - at, region, at))
        at = until
        place += 1
    return Content(inode.size, tuple(segments))
