"""The bootstrap read back: inodes, directories, links and xattrs out of plain bytes.

Reads what bootfs writes (docs/format.md, "Bootstrap") and refuses the rest of
EROFS.  Nothing is parsed ahead: every call looks only at the bytes it needs, so
a bootstrap can be served from a map of a file.  Each value returned was checked
against the buffer's bounds; whoever walks the tree must himself refuse to enter
a directory twice, since a damaged bootstrap can name one in two places.
"""

from __future__ import annotations

from struct import Struct

from store.errors import FormatError, UnsupportedVersion
from store.format.crc32c import update_crc32c
from store.format.erofslayout import (
    BLOCK,
    BLOCK_BITS,
    CHECKSUM_SEED,
    DATA_ALIGNMENT,
    DIRENT,
    FEATURE_CHECKSUM,
    FILE_TYPES,
    FIRST_NID,
    FORMAT_INLINE,
    FORMAT_PLAIN,
    INODE,
    MAGIC,
    MAX_NAME,
    MAX_TARGET,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    SLOT,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    XATTR_ENTRY,
    XATTR_HEADER,
    XATTR_PREFIXES,
    parse_device,
    round_up,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap

_NAME_OFFSET = Struct("<H")
_NAME_OFFSET_AT = 8
_WHAT = "bootstrap"


class Inode:
    """What one inode says.

    ``mtime_s`` is negative before 1970 and ``mtime_ns`` the nanoseconds after
    that second; ``rdev`` is major and minor number, (0, 0) unless a device;
    ``data_offset`` is where a regular file's contents start in image.erofs,
    0 if it has none.
    """

    __slots__ = (
        "blocks_at",
        "data_offset",
        "gid",
        "mode",
        "mtime_ns",
        "mtime_s",
        "nid",
        "nlink",
        "ordinal",
        "rdev",
        "size",
        "tail_at",
        "uid",
        "xattrs_size",
    )

    def __init__(self, nid: int) -> None:
        self.nid = nid
        self.mode = self.uid = self.gid = self.nlink = self.size = 0
        self.ordinal = 0
        """Its number among all inodes of an undamaged image, from 1."""
        self.mtime_s = self.mtime_ns = 0
        self.rdev = (0, 0)
        self.data_offset = 0
        self.xattrs_size = 0
        self.blocks_at = 0
        """Where the blocks of a directory or link start in the bootstrap."""
        self.tail_at = 0
        """Where the bytes after the last whole block lie, 0 if in a block of their own."""

    @property
    def kind(self) -> int:
        """The kind bits of the mode."""
        return self.mode & S_IFMT


class Image:
    """A plain bootstrap, with or without the zeros up to the data region.

    ``buffer`` is borrowed for the life of the object.  ``root_nid`` is the root
    directory, ``inode_count`` counts all inodes, ``data_start`` is where the data
    region begins in image.erofs and ``size`` where image.erofs ends.

    Raises:
        FormatError: the superblock is damaged.
        UnsupportedVersion: it asks for features that bootfs does not write.

    """

    __slots__ = ("_buffer", "_end", "data_start", "inode_count", "root_nid", "size")

    def __init__(self, buffer: bytes | bytearray | memoryview | mmap) -> None:
        self._buffer = buffer
        self._end = len(buffer)
        if self._end < BLOCK:
            raise FormatError(_WHAT, 0, f"only {self._end} bytes, shorter than a block")
        (
            magic,
            checksum,
            compatible,
            block_bits,
            extensions,
            self.root_nid,
            self.inode_count,
            _build_s,
            _build_ns,
            blocks,
            meta_block,
            _xattr_block,
            _uuid,
            _volume,
            incompatible,
            rest,
        ) = SUPERBLOCK.unpack_from(buffer, SUPERBLOCK_OFFSET)
        if magic != MAGIC:
            raise FormatError(_WHAT, SUPERBLOCK_OFFSET, f"magic {magic:#010x} is not EROFS's")
        if incompatible or extensions or block_bits != BLOCK_BITS or meta_block or any(rest):
            raise UnsupportedVersion(
                _WHAT,
                SUPERBLOCK_OFFSET,
                f"features {incompatible:#x}, {1 << min(block_bits, 32)}-byte blocks or other "
                "settings that bootfs does not write",
            )
        if compatible & FEATURE_CHECKSUM:
            _check_checksum(bytes(buffer[SUPERBLOCK_OFFSET:BLOCK]), checksum)
        self.data_start = round_up(self._end, DATA_ALIGNMENT)
        self.size = blocks * BLOCK
        if self.size < self.data_start:
            raise FormatError(
                _WHAT, SUPERBLOCK_OFFSET, f"{blocks} blocks do not reach {self.data_start} bytes"
            )

    def inode(self, nid: int) -> Inode:
        """Return the inode numbered ``nid``; its contents lie within bounds.

        Raises:
            FormatError: there is no such inode, or bootfs would not have written it so.

        """
        at = nid * SLOT
        if nid < FIRST_NID or at + INODE.size > self._end:
            raise FormatError(_WHAT, max(at, 0), f"inode {nid} lies outside the bootstrap")
        inode = Inode(nid)
        (
            layout,
            xattr_units,
            inode.mode,
            reserved,
            inode.size,
            place,
            inode.ordinal,
            inode.uid,
            inode.gid,
            inode.mtime_s,
            inode.mtime_ns,
            inode.nlink,
        ) = INODE.unpack_from(self._buffer, at)
        if layout not in (FORMAT_PLAIN, FORMAT_INLINE) or reserved:
            raise FormatError(_WHAT, at, f"inode {nid} has layout {layout:#x}, not one of bootfs's")
        if inode.mtime_ns > 999_999_999 or inode.nlink == 0:
            raise FormatError(
                _WHAT, at, f"inode {nid} has {inode.nlink} links, {inode.mtime_ns} ns"
            )
        after = at + INODE.size
        if xattr_units:
            inode.xattrs_size = XATTR_HEADER.size + 4 * (xattr_units - 1)
            after += inode.xattrs_size
            if after > self._end:
                raise FormatError(_WHAT, at, f"xattrs of inode {nid} lie outside the bootstrap")
        kind = inode.mode & S_IFMT
        if kind == S_IFREG:
            self._place_file(inode, at, layout, place)
        elif kind in (S_IFDIR, S_IFLNK):
            self._place_contents(inode, at, after, layout, place)
        elif kind not in FILE_TYPES or inode.size or layout != FORMAT_PLAIN:
            raise FormatError(
                _WHAT, at, f"inode {nid} of mode {inode.mode:o} with {inode.size} bytes"
            )
        elif kind in (S_IFCHR, S_IFBLK):
            inode.rdev = parse_device(place)
        return inode

    def _place_file(self, inode: Inode, at: int, layout: int, block: int) -> None:
        """Set where a regular file's contents lie in the data region, if there are any."""
        if not inode.size:
            return
        start = block * BLOCK
        if layout != FORMAT_PLAIN or start < self.data_start or inode.size > self.size - start:
            raise FormatError(
                _WHAT,
                at,
                f"file {inode.nid}: {inode.size} bytes from {start} do not lie in the data region "
                f"{self.data_start}..{self.size}",
            )
        inode.data_offset = start

    def _place_contents(self, inode: Inode, at: int, after: int, layout: int, block: int) -> None:
        """Set where a directory's or link's bytes lie; ``after`` is where a tail would start."""
        size = inode.size
        whole = size if layout == FORMAT_PLAIN else size - size % BLOCK
        start = block * BLOCK if whole else 0
        longest = MAX_TARGET if inode.mode & S_IFMT == S_IFLNK else self._end
        fits = 0 < size <= longest and start + whole <= self._end
        if layout == FORMAT_INLINE:
            tail = size - whole
            fits = fits and 0 < tail <= BLOCK - after % BLOCK and after + tail <= self._end
            inode.tail_at = after
        if not fits or (whole and not block):
            raise FormatError(
                _WHAT,
                at,
                f"contents of inode {inode.nid}, {size} bytes, do not lie in the bootstrap",
            )
        inode.blocks_at = start

    def _block(self, inode: Inode, index: int) -> bytes:
        """Return block ``index`` of a directory's or link's contents."""
        start = index * BLOCK
        size = min(BLOCK, inode.size - start)
        at = inode.tail_at if size < BLOCK and inode.tail_at else inode.blocks_at + start
        return bytes(self._buffer[at : at + size])

    def readlink(self, inode: Inode) -> bytes:
        """Return the target of a symbolic link.

        Raises:
            FormatError: it is not a symbolic link, or the target holds a zero byte.

        """
        if inode.mode & S_IFMT != S_IFLNK:
            raise FormatError(_WHAT, inode.nid * SLOT, f"inode {inode.nid} is not a symbolic link")
        target = self._block(inode, 0)
        if b"\0" in target:
            raise FormatError(_WHAT, inode.nid * SLOT, f"zero byte in the target of {inode.nid}")
        return target

    def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """Return the xattrs of an inode by full name (``security.capability``).

        Raises:
            FormatError: the entries are damaged.

        """
        if not inode.xattrs_size:
            return {}
        at = inode.nid * SLOT + INODE.size
        area = bytes(self._buffer[at : at + inode.xattrs_size])
        _filter, shared = XATTR_HEADER.unpack_from(area)
        if shared:
            raise FormatError(_WHAT, at, f"inode {inode.nid} uses shared xattrs")
        found: dict[bytes, bytes] = {}
        cursor = XATTR_HEADER.size
        while cursor < len(area):
            name_size, prefix, value_size = XATTR_ENTRY.unpack_from(area, cursor)
            name_at = cursor + XATTR_ENTRY.size
            value_at = name_at + name_size
            end = value_at + value_size
            name = XATTR_PREFIXES.get(prefix, b"") + area[name_at:value_at]
            bare = prefix in (2, 3)
            if prefix not in XATTR_PREFIXES or bare != (name_size == 0) or end > len(area):
                raise FormatError(_WHAT, at + cursor, f"damaged xattr of inode {inode.nid}")
            if name in found or b"\0" in name:
                raise FormatError(_WHAT, at + cursor, f"bad xattr name {name!r}")
            found[name] = area[value_at:end]
            cursor = round_up(end, 4)
        return found

    def iter_dir(self, directory: Inode) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, nid and file type of each entry, ``.`` and ``..`` too, sorted by name.

        Raises:
            FormatError: not a directory, or the block about to be read is damaged.

        """
        for name, nid, file_type, _cookie in self.iter_dir_from(directory, 0):
            yield name, nid, file_type

    def iter_dir_from(self, directory: Inode, cookie: int) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield name, nid, file type and the cookie that resumes behind the entry.

        Cookie 0 is the first entry.  Resuming costs the same anywhere in the
        directory; a cookie that was never handed out ends or starts somewhere
        among its entries.

        Raises:
            FormatError: not a directory, or the block about to be read is damaged.

        """
        blocks = self._count_blocks(directory)
        last = b""
        index, ordinal = divmod(max(cookie, 0), BLOCK)
        while index < blocks:
            names, entries = self._parse_block(directory, index)
            if names[0] <= last:
                raise self._damaged(directory, index, "is not sorted after the block before it")
            last = names[-1]
            base = index * BLOCK + 1
            final = len(names) - 1
            for at in range(ordinal, len(names)):
                nid, _name_offset, file_type = entries[at]
                following = base + at if at < final else (index + 1) * BLOCK
                yield names[at], nid, file_type, following
            index += 1
            ordinal = 0

    def lookup(self, directory: Inode, name: bytes) -> int | None:
        """Return the nid of an entry, or None if the directory has no such name.

        Raises:
            FormatError: not a directory, or a block that had to be read is damaged.

        """
        low, high = 0, self._count_blocks(directory) - 1
        while low < high:
            middle = (low + high + 1) // 2
            block = self._block(directory, middle)
            count = self._count_entries(directory, middle, block)
            if self._name(directory, middle, block, count, 0) <= name:
                low = middle
            else:
                high = middle - 1
        index, block = low, self._block(directory, low)
        count = self._count_entries(directory, index, block)
        low, high = 0, count - 1
        while low <= high:
            middle = (low + high) // 2
            found = self._name(directory, index, block, count, middle)
            if found == name:
                nid: int = DIRENT.unpack_from(block, middle * DIRENT.size)[0]
                return nid
            if found < name:
                low = middle + 1
            else:
                high = middle - 1
        return None

    def _count_blocks(self, directory: Inode) -> int:
        if directory.mode & S_IFMT != S_IFDIR:
            raise FormatError(
                _WHAT, directory.nid * SLOT, f"inode {directory.nid} is not a directory"
            )
        return -(-directory.size // BLOCK)

    def _count_entries(self, directory: Inode, index: int, block: bytes) -> int:
        """Return the entries of a directory block: names start where entries end."""
        if len(block) <= DIRENT.size:
            raise self._damaged(directory, index, f"has only {len(block)} bytes")
        first: int = _NAME_OFFSET.unpack_from(block, _NAME_OFFSET_AT)[0]
        if first % DIRENT.size or not DIRENT.size <= first < len(block):
            raise self._damaged(directory, index, f"puts its first name at {first}")
        return first // DIRENT.size

    def _name(self, directory: Inode, index: int, block: bytes, count: int, entry: int) -> bytes:
        """Return the name of one entry, checked by itself."""
        at = entry * DIRENT.size + _NAME_OFFSET_AT
        start: int = _NAME_OFFSET.unpack_from(block, at)[0]
        if entry + 1 < count:
            end: int = _NAME_OFFSET.unpack_from(block, at + DIRENT.size)[0]
        else:
            end = block.find(b"\0", start)
            if end < 0:
                end = len(block)
        name = block[start:end]
        if start < count * DIRENT.size or not 0 < end - start <= MAX_NAME or end > len(block):
            raise self._damaged(directory, index, f"puts name {entry} at {start}..{end}")
        if b"/" in name or b"\0" in name:
            raise self._damaged(directory, index, f"has the impossible name {name!r}")
        return name

    def _parse_block(
        self, directory: Inode, index: int
    ) -> tuple[list[bytes], list[tuple[int, int, int]]]:
        """Return a block's names and raw entries, all checked."""
        block = self._block(directory, index)
        count = self._count_entries(directory, index, block)
        entries = list(DIRENT.iter_unpack(block[: count * DIRENT.size]))
        names = [self._name(directory, index, block, count, entry) for entry in range(count)]
        before = b""
        for name, (_nid, _offset, file_type) in zip(names, entries, strict=True):
            if name <= before or not 1 <= file_type <= len(FILE_TYPES):
                raise self._damaged(directory, index, f"is not sorted or typed at {name!r}")
            before = name
        return names, entries

    def _damaged(self, directory: Inode, index: int, problem: str) -> FormatError:
        return FormatError(
            _WHAT,
            directory.nid * SLOT,
            f"block {index} of directory {directory.nid} {problem}",
        )


def _check_checksum(head: bytes, checksum: int) -> None:
    """Check the superblock's own checksum over its block.

    Raises:
        FormatError: the bytes are not the ones it was made of.

    """
    crc = update_crc32c(CHECKSUM_SEED, head[:4] + bytes(4) + head[8:])
    if crc != checksum:
        raise FormatError(
            _WHAT,
            SUPERBLOCK_OFFSET + 4,
            f"checksum {crc:#010x} of the first block is not the recorded {checksum:#010x}",
        )
