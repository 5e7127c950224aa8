"""The bootstrap written: an EROFS image of a tree without the files' contents.

docs/format.md, section "Bootstrap", describes the bytes.  The story is short:
survey the tree, give every inode a place, write them all, then the superblock.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from converter.erofsplan import Plan, plan_places
from converter.erofstree import survey_tree
from store.errors import FormatError, UnsupportedEntry
from store.format.crc32c import update_crc32c
from store.format.erofslayout import (
    BLOCK,
    BLOCK_BITS,
    CHECKSUM_SEED,
    DATA_ALIGNMENT,
    DIRENT,
    FEATURE_CHECKSUM,
    FEATURE_MTIME,
    FILE_TYPES,
    FORMAT_INLINE,
    FORMAT_PLAIN,
    INODE,
    MAGIC,
    MAX_BLOCKS,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    SLOT,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    XATTR_HEADER,
    encode_device,
    round_up,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converter.erofstree import Directory, Survey
    from converter.tree import Node

_NS = 1_000_000_000


class Bootstrap(NamedTuple):
    """A finished bootstrap."""

    plain: bytes
    """A multiple of 4096 bytes; image.erofs has zeros after them up to ``data_start``."""
    data_start: int
    """Where the data region starts in image.erofs."""


def write_bootstrap(root: Node, extents: Mapping[Node, int], data_size: int) -> Bootstrap:
    """Return the bootstrap of the tree below ``root``.

    ``extents`` gives each regular file that is not empty its offset in the data
    region, a multiple of 4096; ``data_size`` is the size of that region.  Equal
    trees with equal extents give equal bytes, in whatever order their ``children``
    were filled.

    Raises:
        UnsupportedEntry: the tree holds something EROFS cannot, or all is larger than 16 TiB.
        FormatError: ``extents`` leaves out a file or puts one outside the data region.

    """
    survey = survey_tree(root)
    plan = plan_places(survey)
    data_start = round_up(plan.end_block * BLOCK, DATA_ALIGNMENT)
    blocks = (data_start + round_up(data_size, BLOCK)) // BLOCK
    if blocks > MAX_BLOCKS:
        raise UnsupportedEntry(
            f"the image's files take {data_size} bytes, holes included; "
            f"at most {MAX_BLOCKS * BLOCK - data_start} can be addressed"
        )
    writer = _Writer(survey, plan, extents, data_start, data_size)
    for directory in survey.directories:
        writer.write_directory(directory)
        for leaf in directory.leaves:
            writer.write_leaf(leaf)
    _write_superblock(writer.image, plan.nids[root], len(plan.nids), blocks)
    return Bootstrap(bytes(writer.image), data_start)


class _Writer:
    """Fills the places of a plan."""

    def __init__(
        self,
        survey: Survey,
        plan: Plan,
        extents: Mapping[Node, int],
        data_start: int,
        data_size: int,
    ) -> None:
        self.image = bytearray(plan.end_block * BLOCK)
        self._survey = survey
        self._plan = plan
        self._extents = extents
        self._data_start = data_start
        self._data_size = data_size
        self._written = 0

    def write_leaf(self, node: Node) -> None:
        """Write an inode that is not a directory's."""
        kind = node.mode & S_IFMT
        if kind == S_IFREG:
            self._write_inode(node, FORMAT_PLAIN, node.content.size, self._data_block(node))
        elif kind == S_IFLNK:
            self._write_contents(node, len(node.target), [node.target])
        elif node.is_device:
            self._write_inode(node, FORMAT_PLAIN, 0, encode_device(*node.device))
        else:
            self._write_inode(node, FORMAT_PLAIN, 0, 0)

    def write_directory(self, directory: Directory) -> None:
        """Write a directory's inode and its entries."""
        blocks = []
        start = 0
        for end in directory.cuts:
            blocks.append(
                self._encode_entries(directory.names[start:end], directory.nodes[start:end])
            )
            start = end
        self._write_contents(directory.node, directory.size, blocks)

    def _data_block(self, node: Node) -> int:
        """Return the block of image.erofs that a regular file starts in, 0 if it is empty."""
        size = node.content.size
        if not size:
            return 0
        offset = self._extents.get(node, -1)
        if offset % BLOCK or offset < 0 or offset + size > self._data_size:
            raise FormatError(
                "data region",
                offset,
                f"no place for a file of {size} bytes in a data region of {self._data_size}",
            )
        return (self._data_start + offset) // BLOCK

    def _encode_entries(self, names: list[bytes], nodes: list[Node]) -> bytes:
        """Return one block of a directory: the entries, then their names."""
        nids = self._plan.nids
        pack = DIRENT.pack
        name_at = len(names) * DIRENT.size
        parts = []
        for name, node in zip(names, nodes, strict=True):
            parts.append(pack(nids[node], name_at, FILE_TYPES[node.mode & S_IFMT]))
            name_at += len(name)
        return b"".join(parts + names)

    def _write_contents(self, node: Node, size: int, blocks: list[bytes]) -> None:
        """Write an inode whose contents lie in the bootstrap, and these ``blocks``."""
        first = self._plan.blocks.get(node, 0)
        inline = node in self._plan.inline
        end = self._write_inode(node, FORMAT_INLINE if inline else FORMAT_PLAIN, size, first)
        for index, block in enumerate(blocks):
            is_tail = inline and index == len(blocks) - 1
            at = end if is_tail else (first + index) * BLOCK
            self.image[at : at + len(block)] = block

    def _write_inode(self, node: Node, layout: int, size: int, place: int) -> int:
        """Write an inode and its xattrs; return where an inline tail would start."""
        at = self._plan.nids[node] * SLOT
        end = at + INODE.size
        xattrs = self._survey.xattrs.get(node)
        units = 0
        if xattrs:
            units = (len(xattrs) - XATTR_HEADER.size) // 4 + 1
            self.image[end : end + len(xattrs)] = xattrs
            end += len(xattrs)
        self._written += 1
        seconds, nanoseconds = divmod(node.mtime_ns, _NS)
        INODE.pack_into(
            self.image,
            at,
            layout,
            units,
            node.mode,
            0,
            size,
            place,
            self._written,
            node.uid,
            node.gid,
            seconds,
            nanoseconds,
            self._survey.links[node],
        )
        return end


def _write_superblock(image: bytearray, root_nid: int, inodes: int, blocks: int) -> None:
    """Write the superblock; comes last, since UUID and checksum are made of all the rest.

    The UUID tells overlayfs's file handles of one image from those of another; it
    is taken from the contents to be the same wherever the image is made.
    """
    # RFC 9562 version 8: the bits are ours to choose but for version and variant.
    uuid = bytearray(hashlib.sha256(image).digest()[:16])
    uuid[6] = uuid[6] & 0x0F | 0x80
    uuid[8] = uuid[8] & 0x3F | 0x80

    def pack(checksum: int) -> None:
        SUPERBLOCK.pack_into(
            image,
            SUPERBLOCK_OFFSET,
            MAGIC,
            checksum,
            FEATURE_CHECKSUM | FEATURE_MTIME,
            BLOCK_BITS,
            0,
            root_nid,
            inodes,
            0,
            0,
            blocks,
            0,
            0,
            bytes(uuid),
            b"",
            0,
            b"",
        )

    pack(0)
    pack(update_crc32c(CHECKSUM_SEED, bytes(image[SUPERBLOCK_OFFSET:BLOCK])))
