"""Compare a converted image with its source: every byte, all metadata.

The converted side is read through the code that boots it (`ImageReader` and the
EROFS reader), the source side from its layers.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass

from converter.progress import Progress
from converter.tree import Node
from store.errors import AccessDenied, BootfsError, RemoteError, UsageError
from store.format.erofs import Image, Inode
from store.read.image import ImageReader

STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs; ``path`` is printable."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class Comparison:
    """A walk over both trees at once; iterate for the differences."""

    def __init__(self, source: Node, tree: Image, reader: ImageReader, progress: Progress) -> None:
        self._source = source
        self._tree = tree
        self._reader = reader
        self._progress = progress
        self._names: dict[Node, int] = {}
        self._nodes: dict[int, Node] = {}
        self._checked: set[Node] = set()
        self.entries = 0
        """Names compared so far."""

    def iter_differences(self) -> Iterator[Difference]:
        """Yield every difference, in path order.

        What the store lacks or holds damaged is a difference too, with the reason.

        Raises:
            FormatError, IntegrityError: the bootstrap is damaged.
            AccessDenied, RemoteError: the store lets nobody read, or does not answer, which
                says nothing about the image.

        """
        link_counts = _link_counts(self._source)
        pending: list[tuple[bytes, Node, int]] = [(b"/", self._source, self._tree.root_nid)]
        while pending:
            path, node, nid = pending.pop()
            shown = path.decode("utf-8", "backslashreplace")
            inode = self._tree.inode(nid)
            self.entries += 1
            for what in self._iter_metadata(node, inode, link_counts):
                yield Difference(shown, what)
            if node.is_regular and stat.S_ISREG(inode.mode) and node not in self._checked:
                self._checked.add(node)
                what = self._compare_bytes(node, inode)
                if what:
                    yield Difference(shown, what)
            if not (node.is_directory and stat.S_ISDIR(inode.mode)):
                continue
            found = {n: i for n, i, _ in self._tree.iter_dir(inode) if n not in (b".", b"..")}
            base = path if path.endswith(b"/") else path + b"/"
            for name in sorted(node.children.keys() | found.keys(), reverse=True):
                child = base + name
                printable = child.decode("utf-8", "backslashreplace")
                if name not in found:
                    yield Difference(printable, "missing in the converted image")
                elif name not in node.children:
                    yield Difference(printable, "not in the source")
                else:
                    pending.append((child, node.children[name], found[name]))

    def _iter_metadata(
        self, node: Node, inode: Inode, link_counts: dict[Node, int]
    ) -> Iterator[str]:
        pairs: list[tuple[str, object, object]] = [
            ("mode", oct(node.mode), oct(inode.mode)),
            ("owner", node.uid, inode.uid),
            ("group", node.gid, inode.gid),
            ("mtime", node.mtime_ns, inode.mtime_s * 10**9 + inode.mtime_ns),
            ("xattrs", node.xattrs, self._tree.xattrs(inode)),
        ]
        if node.is_regular:
            pairs.append(("size", node.content.size, inode.size))
        if node.is_symlink and stat.S_ISLNK(inode.mode):
            pairs.append(("target", node.target, self._tree.readlink(inode)))
        if node.is_device:
            pairs.append(("device", node.device, inode.rdev))
        if node.is_directory:
            below = sum(child.is_directory for child in node.children.values())
            pairs.append(("links", 2 + below, inode.nlink))
        else:
            pairs.append(("links", link_counts[node], inode.nlink))
            known = self._names.setdefault(node, inode.nid)
            same = self._nodes.setdefault(inode.nid, node)
            if known != inode.nid or same is not node:
                yield "hard links differ"
        for what, wanted, got in pairs:
            if wanted != got:
                yield f"{what} is {got!r}, in the source {wanted!r}"

    def _compare_bytes(self, node: Node, inode: Inode) -> str:
        size = min(node.content.size, inode.size)
        for at in range(0, size, STEP):
            count = min(STEP, size - at)
            wanted = node.content.pread(at, count)
            try:
                got = b"".join(self._reader.read(inode.data_offset + at, count))
            except (AccessDenied, RemoteError, UsageError):
                raise
            except BootfsError as error:
                return f"cannot be read: {error}"
            self._progress.advance(count)
            if got != wanted:
                first = next(i for i in range(count) if got[i : i + 1] != wanted[i : i + 1])
                return f"bytes differ from {at + first} on"
        return ""


def _link_counts(root: Node) -> dict[Node, int]:
    counts: dict[Node, int] = {}
    pending = [root]
    while pending:
        for child in pending.pop().children.values():
            if child.is_directory:
                pending.append(child)
            else:
                counts[child] = counts.get(child, 0) + 1
    return counts
