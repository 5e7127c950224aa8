"""Debian packages read without dpkg: an ar archive holding a tar of the files.

Layout: deb(5).
"""

from __future__ import annotations

import io
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from typing import Protocol

from store.errors import FormatError

CONTENTS_LIMIT = 128 << 20
"""The files of a package together, in bytes: the largest in use have 20 MB."""
LINK_LIMIT = 40
"""Links followed from one to the next, as the kernel does."""
_DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)
"""What tarfile, and what decompresses for it, raise for bytes that are none of theirs."""
_XZ, _GZIP = b"\xfd7zXZ\0", b"\x1f\x8b"
_MAGIC = b"!<arch>\n"
_MEMBER_HEADER = 60


class _Decompressor(Protocol):
    """What gzip's and xz's have in common."""

    @property
    def eof(self) -> bool:
        """Whether the end of what was compressed has come."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return at most so many plain bytes."""


# ------  ----  ---------------------------------------
# offset  size  ar member header field (ASCII, spaces after)
# ------  ----  ---------------------------------------
#      0    16  name
#     16    32  time, owner, group, mode: not used here
#     48    10  size of the body, decimal
#     58     2  "`\n"
# ------  ----  ---------------------------------------


def iter_ar(what: str, archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and body of each member of an ar archive; ``what`` names it in errors.

    Raises:
        FormatError: the archive is damaged.

    """
    if not archive.startswith(_MAGIC):
        raise FormatError(what, 0, "not an ar archive")
    at = len(_MAGIC)
    while at < len(archive):
        header = archive[at : at + _MEMBER_HEADER]
        size = header[48:58].strip()
        if len(header) < _MEMBER_HEADER or header[58:] != b"`\n" or not size.isdigit():
            raise FormatError(what, at, "damaged ar member header")
        at += _MEMBER_HEADER
        body = archive[at : at + int(size)]
        if len(body) < int(size):
            raise FormatError(what, at, f"ar member of {int(size)} bytes ends after {len(body)}")
        yield header[:16].decode("latin-1").rstrip(" ").removesuffix("/"), body
        at += int(size) + int(size) % 2


def parse_deb(what: str, package: bytes) -> dict[str, bytes]:
    """Return path (without leading ``/``) and contents of each regular file of a package.

    A symbolic link to a regular file of the same package stands as a copy of it.

    Raises:
        FormatError: the package is damaged or has no ``data.tar``.

    """
    for name, body in iter_ar(what, package):
        if name.startswith("data.tar"):
            try:
                with tarfile.open(fileobj=io.BytesIO(_plain(what, body)), mode="r:") as tar:
                    return _read_files(what, tar)
            except _DAMAGE as error:
                raise FormatError(what, 0, f"{name}: {error or type(error).__name__}") from error
    raise FormatError(what, len(package), "no data.tar member")


def _plain(what: str, body: bytes) -> bytes:
    """Return the tar that ``body`` is, or is compressed.

    Whole, since tarfile asks for as many bytes as a header claims, and what decompresses for
    it makes room for them first.
    """
    if body.startswith(_XZ):
        decompressor: _Decompressor = lzma.LZMADecompressor()
    elif body.startswith(_GZIP):
        decompressor = zlib.decompressobj(wbits=31)
    else:
        return body
    plain = decompressor.decompress(body, CONTENTS_LIMIT + 1)
    if len(plain) > CONTENTS_LIMIT:
        raise FormatError(what, 0, f"a tar of more than {CONTENTS_LIMIT:,} bytes")
    if not decompressor.eof:
        raise EOFError("ends early")
    return plain


def _read_files(what: str, tar: tarfile.TarFile) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    links: dict[str, str] = {}
    room = CONTENTS_LIMIT
    for member in tar:
        path = posixpath.normpath(member.name).lstrip("/")
        if path in ("", ".") and member.isdir():
            continue
        if path in ("", ".", "..") or path.startswith("../"):
            raise FormatError(what, member.offset, f"{member.name!r} is not below the root")
        if member.isfile() and (body := tar.extractfile(member)) is not None:
            room -= member.size
            if room < 0:
                raise FormatError(
                    what, member.offset, f"files of more than {CONTENTS_LIMIT:,} bytes"
                )
            contents[path] = body.read()
        elif member.issym():
            links[path] = posixpath.normpath(
                posixpath.join("/", posixpath.dirname(path), member.linkname)
            ).lstrip("/")
        elif member.islnk():
            links[path] = posixpath.normpath(member.linkname).lstrip("/")
    for path in links:
        target = path
        for _ in range(LINK_LIMIT):
            target = links.get(target, target)
        if target in contents:
            contents[path] = contents[target]
    return contents
