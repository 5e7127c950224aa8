"""How the bootstrap lies on disk: the part of the EROFS layout that bootfs writes.

The tables follow the kernel's ``fs/erofs/erofs_fs.h``; docs/format.md, section
"Bootstrap", says which of its choices are ours and why.  All numbers are
little-endian.  The writer and the reader both take their structs from here.
"""

from __future__ import annotations

from struct import Struct

BLOCK = 4096
"""Bytes of a block.  It is also the page the kernel reads metadata by."""

BLOCK_BITS = 12

DATA_ALIGNMENT = 2 << 20
"""The data region starts at a multiple of this, so that it never shares a huge page."""

SLOT = 32
"""Inodes start at multiples of this; an inode's number (nid) counts them from byte 0."""

MAX_BLOCKS = 0xFFFFFFFF
"""Blocks of the whole ``image.erofs``: 16 TiB less one block."""

MAX_NAME = 255
MAX_TARGET = 4095
"""Bytes of a symbolic link's target (PATH_MAX with its terminating zero)."""

# ------  ----  ---------------------------------------------------------------
# offset  size  superblock field
# ------  ----  ---------------------------------------------------------------
#      0     4  magic, 0xE0F5E1E2
#      4     4  CRC-32C of bytes 1024..4095 of the image, itself taken as zero
#      8     4  compatible features: 1 checksum, 2 mtime (not ctime) in inodes
#     12     1  block size as a power of two: 12
#     13     1  16-byte extensions of the superblock: 0
#     14     2  nid of the root directory
#     16     8  number of inodes
#     24     8  build time in seconds: 0
#     32     4  build time, nanoseconds: 0
#     36     4  blocks of image.erofs, data region included
#     40     4  block that nids are counted from: 0
#     44     4  block of shared xattrs: 0, there are none
#     48    16  UUID
#     64    16  volume name: zeros
#     80     4  incompatible features: 0
#     84    44  compression, devices, packed files, long xattr names: zeros
# ------  ----  ---------------------------------------------------------------
SUPERBLOCK = Struct("<IIIBBHQQIIII16s16sI44s")
SUPERBLOCK_OFFSET = 1024
MAGIC = 0xE0F5E1E2
FEATURE_CHECKSUM = 1
FEATURE_MTIME = 2
CHECKSUM_SEED = 0xFFFFFFFF

FIRST_NID = (SUPERBLOCK_OFFSET + SUPERBLOCK.size) // SLOT
"""The lowest nid that does not overlap the superblock."""

# ------  ----  ---------------------------------------------------------------
# offset  size  inode field (the 64-byte, "extended" kind)
# ------  ----  ---------------------------------------------------------------
#      0     2  bit 0: extended; bits 1-3: data layout
#      2     2  size of the xattrs: 0, or 12 + 4 * (this - 1) bytes
#      4     2  st_mode
#      6     2  reserved
#      8     8  size
#     16     4  first block of the contents, or device number
#     20     4  ordinal of the inode
#     24     4  uid
#     28     4  gid
#     32     8  mtime, signed seconds
#     40     4  mtime, nanoseconds
#     44     4  link count
#     48    16  reserved
# ------  ----  ---------------------------------------------------------------
INODE = Struct("<HHHHQIIIIqII16x")
FORMAT_PLAIN = 1 | 0 << 1
"""Extended, FLAT_PLAIN: all contents in consecutive blocks."""
FORMAT_INLINE = 1 | 2 << 1
"""Extended, FLAT_INLINE: whole blocks as above, the rest behind the inode and its xattrs."""

# ------  ----  ---------------------------------------------------------------
# offset  size  directory entry field
# ------  ----  ---------------------------------------------------------------
#      0     8  nid
#      8     2  offset of the name in this directory block
#     10     1  file type
#     11     1  reserved
# ------  ----  ---------------------------------------------------------------
DIRENT = Struct("<QHBx")

# ------  ----  ---------------------------------------------------------------
# offset  size  xattr header field (once, before the entries of an inode)
# ------  ----  ---------------------------------------------------------------
#      0     4  name filter: 0, unused
#      4     1  number of shared xattrs: 0
#      5     7  reserved
# ------  ----  ---------------------------------------------------------------
XATTR_HEADER = Struct("<IB7x")

# ------  ----  ---------------------------------------------------------------
# offset  size  xattr entry field; name and value follow, zeros to 4 bytes
# ------  ----  ---------------------------------------------------------------
#      0     1  length of the name without its prefix
#      1     1  prefix
#      2     2  length of the value
# ------  ----  ---------------------------------------------------------------
XATTR_ENTRY = Struct("<BBH")
MAX_XATTR_VALUE = 0xFFFF
MAX_XATTRS = XATTR_HEADER.size + 4 * (0xFFFF - 1)
"""Bytes of one inode's xattrs, header included."""

XATTR_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}

S_IFMT = 0o170000
S_IFIFO = 0o010000
S_IFCHR = 0o020000
S_IFDIR = 0o040000
S_IFBLK = 0o060000
S_IFREG = 0o100000
S_IFLNK = 0o120000
S_IFSOCK = 0o140000

FILE_TYPES = {
    S_IFREG: 1,
    S_IFDIR: 2,
    S_IFCHR: 3,
    S_IFBLK: 4,
    S_IFIFO: 5,
    S_IFSOCK: 6,
    S_IFLNK: 7,
}
"""Kind bits of a mode to the file type of a directory entry."""


MAX_MAJOR = 0xFFF
MAX_MINOR = 0xFFFFF


def encode_device(major: int, minor: int) -> int:
    """Return the kernel's 32-bit form (``new_encode_dev``) of a device number.

    The major number is at most `MAX_MAJOR`, the minor number `MAX_MINOR`.
    """
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def parse_device(encoded: int) -> tuple[int, int]:
    """Return major and minor number: `encode_device` undone."""
    return encoded >> 8 & 0xFFF, encoded & 0xFF | encoded >> 12 & 0xFFF00


def round_up(size: int, unit: int) -> int:
    """Return the least multiple of ``unit`` that is not below ``size``."""
    return -(-size // unit) * unit
