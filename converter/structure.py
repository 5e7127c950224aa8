"""The structure of a bootstrap, checked whole: what `Image` checks at each call, and all between.

`Image` checks what a call reads.  What no single call can see is checked here, once, when
an image is converted and by ``bootfs check``: that the tree is one, that counts are the ones
found, that nothing overlaps.  At boot the bootstrap's digest is enough.
"""

from __future__ import annotations

from itertools import pairwise

from store.errors import FormatError
from store.format.chunkindex import ChunkIndex
from store.format.erofs import Image, Inode
from store.format.erofslayout import (
    BLOCK,
    FILE_TYPES,
    INODE,
    S_IFDIR,
    S_IFLNK,
    S_IFREG,
    SLOT,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
)

_DIRECTORY = FILE_TYPES[S_IFDIR]


def check_structure(image: Image, index: ChunkIndex) -> None:
    """Return when the bootstrap ``image`` is a tree whose files lie in ``index``'s data region.

    Takes memory for each inode, and time for each entry: at most those that fit the bootstrap.

    Raises:
        FormatError: it is not; the message says what is wrong, and where.

    """
    if (image.data_start, image.size) != (index.data_start, index.data_start + index.data_size):
        raise FormatError(
            "bootstrap",
            SUPERBLOCK_OFFSET,
            f"a data region from {image.data_start} to {image.size}; the chunk index has one of "
            f"{index.data_size} bytes from {index.data_start}",
        )
    _Walk(image, index.bootstrap_size).check()


class _Walk:
    """One pass over a tree; every directory is entered once, every inode read once."""

    def __init__(self, image: Image, size: int) -> None:
        self._image = image
        self._room = size
        """What directories not yet read may have, in bytes: they lie in the bootstrap."""
        self._stated: dict[int, tuple[int, int]] = {}
        """File type and link count of each inode, by nid."""
        self._found: dict[int, int] = {}
        """Names of each inode that is no directory."""
        self._ordinals: set[int] = set()
        self._places: list[tuple[int, int]] = [
            (SUPERBLOCK_OFFSET, SUPERBLOCK_OFFSET + SUPERBLOCK.size)
        ]
        """Start and end of all that lies in the bootstrap."""

    def check(self) -> None:
        """Go through the tree.

        Raises:
            FormatError: something is wrong.

        """
        root = self._image.root_nid
        if self._read(root) != _DIRECTORY:
            raise _wrong(root, b"", "the root is not a directory")
        pending = [(b"", root, root)]
        while pending:
            path, nid, parent = pending.pop()
            pending += self._enter(path, nid, parent)
        for nid, count in self._found.items():
            stated = self._stated[nid][1]
            if stated != count:
                raise _wrong(nid, b"", f"its link count is {stated}, its names are {count}")
        count = len(self._stated)
        if count != self._image.inode_count:
            raise FormatError(
                "bootstrap",
                SUPERBLOCK_OFFSET + 16,
                f"{self._image.inode_count} inodes stated, {count} found",
            )
        self._places.sort()
        for (start, end), (after, _) in pairwise(self._places):
            if after < end:
                raise FormatError("bootstrap", after, f"what begins here overlaps {start} to {end}")

    def _read(self, nid: int) -> int:
        """Check an inode by itself, when it is first named; return its file type."""
        known = self._stated.get(nid)
        if known is not None:
            return known[0]
        image = self._image
        inode = image.inode(nid)
        if not 0 < inode.ordinal <= image.inode_count or inode.ordinal in self._ordinals:
            raise _wrong(
                nid, b"", f"its ordinal {inode.ordinal} is another's, or over {image.inode_count}"
            )
        self._ordinals.add(inode.ordinal)
        self._place(inode)
        image.xattrs(inode)
        if inode.kind == S_IFLNK:
            image.readlink(inode)
        elif inode.kind == S_IFREG and inode.data_offset % BLOCK:
            raise _wrong(nid, b"", f"its contents begin within a block, at {inode.data_offset}")
        kind = FILE_TYPES[inode.kind]
        self._stated[nid] = (kind, inode.nlink)
        return kind

    def _place(self, inode: Inode) -> None:
        """Note where an inode lies, and its contents in the bootstrap."""
        start = inode.nid * SLOT
        bare = end = start + INODE.size + inode.xattrs_size
        whole = inode.size if inode.kind in (S_IFDIR, S_IFLNK) else 0
        if inode.tail_at:
            end += whole % BLOCK
            whole -= whole % BLOCK
        # Larger than a block by itself, it begins at one; all others cross none.
        if start // BLOCK != (end - 1) // BLOCK and (start % BLOCK or bare - start <= BLOCK):
            raise _wrong(inode.nid, b"", f"it crosses a block, from {start} to {end}")
        self._places.append((start, end))
        if whole:
            self._places.append((inode.blocks_at, inode.blocks_at + whole))

    def _enter(self, path: bytes, nid: int, parent: int) -> list[tuple[bytes, int, int]]:
        """Check the entries of a directory; return its subdirectories: path, nid, its own nid."""
        image = self._image
        inode = image.inode(nid)
        self._room -= inode.size
        if self._room < 0:
            raise _wrong(nid, path, "directories overlap: they are larger than the bootstrap")
        below: list[tuple[bytes, int, int]] = []
        own = {b".": nid, b"..": parent}
        found = 0
        # Names are sorted, so none is twice, and valid: the reader refuses others.
        for name, child, kind in image.iter_dir(inode):
            wanted = own.get(name)
            if wanted is not None:
                found += 1
                if (child, kind) != (wanted, _DIRECTORY):
                    raise _wrong(nid, path, f"its {name.decode()!r} is inode {child}, not {wanted}")
                continue
            is_known = child in self._stated
            here = path + b"/" + name
            if self._read(child) != kind:
                raise _wrong(
                    child, here, f"its file type is {self._read(child)}, its entry says {kind}"
                )
            if kind != _DIRECTORY:
                self._found[child] = self._found.get(child, 0) + 1
            elif is_known:
                raise _wrong(child, here, "this directory has another name already")
            else:
                below.append((here, child, nid))
        if found != len(own):
            raise _wrong(nid, path, "it lacks '.' or '..'")
        if inode.nlink != 2 + len(below):
            raise _wrong(
                nid,
                path,
                f"its link count is {inode.nlink}, with {len(below)} subdirectories",
            )
        return below


def _wrong(nid: int, path: bytes, problem: str) -> FormatError:
    shown = f" ({path.decode('utf-8', 'backslashreplace')})" if path else ""
    return FormatError("bootstrap", nid * SLOT, f"inode {nid}{shown}: {problem}")
