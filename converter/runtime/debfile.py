"""Debian packages read without dpkg: an ar archive holding a tar of the files.

Layout: deb(5).
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterator

from store.errors import FormatError

_MAGIC = b"!<arch>\n"
_MEMBER_HEADER = 60
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
                with tarfile.open(fileobj=io.BytesIO(body)) as tar:
                    return _read_files(tar)
            except (tarfile.TarError, EOFError, OSError) as error:
                raise FormatError(what, 0, f"{name}: {error}") from error
    raise FormatError(what, len(package), "no data.tar member")


def _read_files(tar: tarfile.TarFile) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    links: dict[str, str] = {}
    for member in tar:
        path = posixpath.normpath(member.name).lstrip("/")
        if member.isfile() and (body := tar.extractfile(member)) is not None:
            contents[path] = body.read()
        elif member.issym():
            links[path] = posixpath.normpath(
                posixpath.join("/", posixpath.dirname(path), member.linkname)
            ).lstrip("/")
        elif member.islnk():
            links[path] = posixpath.normpath(member.linkname).lstrip("/")
    for path in links:
        target = path
        for _ in links:  # as many steps as there are links: a loop ends, too
            target = links.get(target, target)
        if target in contents:
            contents[path] = contents[target]
    return contents
