"""A whole tree written as one layer: a pax tar, as every engine unpacks it.

Layouts: POSIX.1-2017 "pax Interchange Format"; xattrs as Schily's tar and engines keep
them; holes as GNU tar 1.35's manual, appendix D, "PAX Format, Version 1.0".
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterator

from converter.tarformat import BLOCK
from converter.tree import Content, Node, Segment
from store.errors import UnsupportedEntry

PIECE = 1 << 20
_ZEROS = bytes(PIECE)
_WHITEOUT = b".wh."
_NS = 10**9
_TIME_LIMIT = 8**11
"""The first second that an octal field of 12 bytes does not hold."""
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def iter_layer(root: Node, *, sparse: bool) -> Iterator[bytes]:
    """Yield the tar of a tree, in path order; the same tree gives the same bytes.

    A file with several names is an entry under the first and hard links under the others.
    With ``sparse``, holes of files take no room, which every reader understands; but
    Docker's engine (20.10) cannot save or push a layer that has such an entry.  Without,
    they are zeros.

    Raises:
        UnsupportedEntry: no layer can hold something of the tree.
        BootfsError: contents cannot be read.

    """
    first: dict[Node, bytes] = {}
    pending = [(b"./", root)]
    while pending:
        path, node = pending.pop()
        if node.is_directory:
            yield _header(path, node, tarfile.DIRTYPE)
            base = path if path.endswith(b"/") else path + b"/"
            for name, child in sorted(node.children.items(), reverse=True):
                _check_name(base + name, name)
                pending.append((base + name, child))
        elif node in first:
            yield _header(path, node, tarfile.LNKTYPE, link=first[node])
        else:
            first[node] = path
            yield from _iter_entry(path, node, sparse=sparse)
    yield bytes(2 * BLOCK)


def _check_name(path: bytes, name: bytes) -> None:
    if name.startswith(_WHITEOUT):
        raise UnsupportedEntry(
            f"{_shown(path)}: in a layer this name takes away another file; rename it"
        )


def _iter_entry(path: bytes, node: Node, *, sparse: bool) -> Iterator[bytes]:
    if node.kind not in _TYPES:
        raise UnsupportedEntry(f"{_shown(path)}: a layer holds no sockets; remove it")
    if stat.S_ISCHR(node.mode) and node.device == (0, 0):
        raise UnsupportedEntry(
            f"{_shown(path)}: to overlayfs a device 0:0 is a file that was removed; remove it"
        )
    kind = _TYPES[node.kind]
    if not node.is_regular:
        yield _header(path, node, kind, link=node.target)
        return
    content = node.content
    held = sum(segment.size for segment in content.segments)
    if held == content.size or not sparse:
        yield _header(path, node, kind, size=content.size)
        yield from _iter_plain(content)
        yield bytes(-content.size % BLOCK)
        return
    runs = _encode_runs(content)
    records = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": _text(path),
        "GNU.sparse.realsize": str(content.size),
    }
    yield _header(path, node, kind, size=len(runs) + held, records=records)
    yield runs
    for segment in content.segments:
        yield from _iter_segment(segment)
    yield bytes(-held % BLOCK)


def _iter_plain(content: Content) -> Iterator[bytes]:
    at = 0
    for segment in content.segments:
        yield from _iter_zeros(segment.offset - at)
        yield from _iter_segment(segment)
        at = segment.offset + segment.size
    yield from _iter_zeros(content.size - at)


def _iter_segment(segment: Segment) -> Iterator[bytes]:
    for at in range(0, segment.size, PIECE):
        yield segment.blob.pread(segment.blob_offset + at, min(PIECE, segment.size - at))


def _iter_zeros(size: int) -> Iterator[bytes]:
    for at in range(0, size, PIECE):
        yield _ZEROS[: min(PIECE, size - at)]


def _encode_runs(content: Content) -> bytes:
    """Return the map of a file with holes, which stands before its bytes."""
    runs = [(segment.offset, segment.size) for segment in content.segments]
    if not runs or sum(runs[-1]) < content.size:
        # Else GNU tar would end the file where the last run does.
        runs.append((content.size, 0))
    numbers = [len(runs), *(number for run in runs for number in run)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + bytes(-len(text) % BLOCK)


def _header(
    path: bytes,
    node: Node,
    kind: bytes,
    *,
    link: bytes = b"",
    size: int = 0,
    records: dict[str, str] | None = None,
) -> bytes:
    info = tarfile.TarInfo(_text(path))
    info.type = kind
    info.mode = stat.S_IMODE(node.mode)
    info.uid, info.gid = node.uid, node.gid
    info.size = size
    info.linkname = _text(link)
    info.devmajor, info.devminor = node.device
    seconds, ns = divmod(node.mtime_ns, _NS)
    info.mtime = min(max(seconds, 0), _TIME_LIMIT - 1)
    info.pax_headers = dict(records or {})
    if ns or info.mtime != seconds:
        info.pax_headers["mtime"] = _time(node.mtime_ns)
    for name, value in sorted(node.xattrs.items()):
        if b"=" in name or not value:
            raise UnsupportedEntry(
                f"{_shown(path)}: a layer cannot hold the xattr {name!r}, whose value is empty "
                "or whose name has a '='; remove it"
            )
        info.pax_headers[f"SCHILY.xattr.{_text(name)}"] = _text(value)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _time(ns: int) -> str:
    sign = "-" if ns < 0 else ""
    seconds, rest = divmod(abs(ns), _NS)
    return f"{sign}{seconds}.{rest:09d}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _shown(path: bytes) -> str:
    return path.removeprefix(b".").decode("utf-8", "backslashreplace")
