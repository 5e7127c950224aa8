"""Xattrs of one node in the form the bootstrap keeps behind the inode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from store.errors import UnsupportedEntry
from store.format.erofslayout import (
    MAX_NAME,
    MAX_XATTR_VALUE,
    MAX_XATTRS,
    XATTR_ENTRY,
    XATTR_HEADER,
    XATTR_PREFIXES,
    round_up,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_ACL_VERSION = b"\2\0\0\0"
_ACL_ENTRY = 8


def encode_xattrs(xattrs: Mapping[bytes, bytes], where: str) -> bytes:
    """Return header and entries, sorted by name; ``where`` is the path for messages.

    Values are kept as getxattr(2) returns them, those of POSIX ACLs too: that is
    the form EROFS parses.

    Raises:
        UnsupportedEntry: a name or value that EROFS has no room or no prefix for,
            or an ACL that the kernel would refuse at every access.

    """
    out = bytearray(XATTR_HEADER.pack(0, 0))
    for name, value in sorted(xattrs.items()):
        prefix, rest = _split_name(name, where)
        if len(value) > MAX_XATTR_VALUE:
            raise UnsupportedEntry(
                f"{where}: the value of xattr {name!r} has {len(value)} bytes, "
                f"at most {MAX_XATTR_VALUE} can be kept; remove it from the image"
            )
        is_acl = XATTR_PREFIXES[prefix] == name
        if is_acl and (value[:4] != _ACL_VERSION or len(value) % _ACL_ENTRY != 4):
            raise UnsupportedEntry(
                f"{where}: xattr {name!r} is not a POSIX ACL of version 2; remove it from the image"
            )
        out += XATTR_ENTRY.pack(len(rest), prefix, len(value))
        out += rest
        out += value
        out += bytes(round_up(len(out), 4) - len(out))
    if len(out) > MAX_XATTRS:
        raise UnsupportedEntry(
            f"{where}: its xattrs take {len(out)} bytes, at most {MAX_XATTRS} can be kept; "
            "remove some from the image"
        )
    return bytes(out)


def _split_name(name: bytes, where: str) -> tuple[int, bytes]:
    """Return EROFS's number of the name's prefix, and the rest of the name."""
    if len(name) <= MAX_NAME and b"\0" not in name:
        for number, prefix in XATTR_PREFIXES.items():
            is_whole = not prefix.endswith(b".")
            if name == prefix if is_whole else name.startswith(prefix) and name != prefix:
                return number, name[len(prefix) :]
    raise UnsupportedEntry(
        f"{where}: xattr {name[:64]!r} ({len(name)} bytes) is none that EROFS can keep "
        "(user.*, trusted.*, security.*, POSIX ACLs); remove it from the image"
    )
