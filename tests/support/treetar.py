"""Trees in memory written as a layer, for the converter to read back."""

from __future__ import annotations

import stat
import tarfile

from converter.tree import Content, Node, Segment
from tests.support.layers import Member, _member, tar_of
from tests.support.trees import iter_tree

SIZE_LIMIT = 8 << 20
"""Larger files, sparse ones all of them, are left out: a plain tar would hold their zeros."""

_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def without_what_tars_lack(root: Node) -> Node:
    """Take sockets, files over `SIZE_LIMIT` and empty xattrs out of a tree; return it.

    An extended header with an empty value means that there is none (pax, POSIX.1-2001).
    """
    for _, node in list(iter_tree(root)):
        node.xattrs = {name: value for name, value in node.xattrs.items() if value}
        for name, child in list(node.children.items()):
            if child.kind == stat.S_IFSOCK or child.content.size > SIZE_LIMIT:
                del node.children[name]
    return root


def tar_of_tree(root: Node) -> bytes:
    """Return a layer that makes ``root``; hard links name the first path of their file."""
    first: dict[Node, bytes] = {}
    members: list[Member] = []
    for path, node in iter_tree(root):
        name = b"." + path
        # Link entries repeat the attributes of their file, as those of real tars do.
        is_link = not node.is_directory and node in first
        target = first.setdefault(node, name)
        data = node.content.pread(0, node.content.size) if node.is_regular and not is_link else b""
        sign = "-" if node.mtime_ns < 0 else ""
        seconds, ns = divmod(abs(node.mtime_ns), 10**9)
        members.append(
            _member(
                tarfile.LNKTYPE if is_link else _TYPES[node.kind],
                name,
                data,
                mode=stat.S_IMODE(node.mode),
                uid=node.uid,
                gid=node.gid,
                link=target if is_link else node.target,
                device=node.device,
                pax={"mtime": f"{sign}{seconds}.{ns:09d}"},
                xattrs={key.decode(): value for key, value in node.xattrs.items()},
            )
        )
    return tar_of(*members)


def copy_of(node: Node, **changed: object) -> Node:
    """Return a node like ``node`` but for some fields."""
    names = ("mode", "uid", "gid", "mtime_ns", "xattrs", "children", "content", "target", "device")
    return Node(**{name: getattr(node, name) for name in names} | changed)


def one_byte_changed(content: Content, at: int) -> Content:
    """Return the same bytes but for the one at ``at``."""

    class Changed:
        def pread(self, offset: int, size: int) -> bytes:
            data = bytearray(content.pread(offset, size))
            if offset <= at < offset + size:
                data[at - offset] ^= 1
            return bytes(data)

    return Content(content.size, (Segment(0, content.size, Changed(), 0),))
