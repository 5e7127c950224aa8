"""Build the tree of one layer from its entries, as overlay2 unpacks a layer by itself.

Docker's overlay2 driver unpacks every layer into an empty directory and lets the
kernel lay the directories over each other.  So an entry sees only what its own
layer holds: ``lib/file`` over a lower layer's link ``lib -> usr/lib`` makes a
directory ``lib``.  Whiteouts become character devices 0:0, as in overlayfs.
"""

from __future__ import annotations

import stat

from converter.tarreader import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    DIRECTORY_MEMORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Budget,
    Entry,
)
from converter.tree import Node, empty_root
from store.errors import UnsafePath, UnsupportedEntry

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."
"""What aufs, and old engines on it, called its own bookkeeping."""

_NAME_LIMIT = 255
_PATH_LIMIT = 4095
_XATTR_NAME_LIMIT = 255
_XATTR_LIMIT = 65536
_LINK_LIMIT = 40

_KINDS = {
    REGULAR: stat.S_IFREG,
    SYMLINK: stat.S_IFLNK,
    CHARACTER_DEVICE: stat.S_IFCHR,
    BLOCK_DEVICE: stat.S_IFBLK,
    DIRECTORY: stat.S_IFDIR,
    FIFO: stat.S_IFIFO,
}


def is_whiteout(node: Node) -> bool:
    """Whether ``node`` hides what lower layers have of its name."""
    return stat.S_ISCHR(node.mode) and node.device == (0, 0)


class LayerTree:
    """One layer, while it is read and after.

    ``lower`` is the merged tree it goes over, ``number`` what its nodes say they are of.
    """

    __slots__ = ("_budget", "_entry", "_lower", "_name", "_number", "opaque", "root")

    def __init__(self, name: str, lower: Node, budget: Budget, number: int = 0) -> None:
        self._name = name
        self._number = number
        self._lower = lower
        self._budget = budget
        self._entry: Entry
        self.root = empty_root()
        self.root.mtime_ns = lower.mtime_ns
        self.opaque: set[Node] = set()
        """Directories that hide the lower layers' ones instead of merging with them."""

    def add(self, entry: Entry) -> None:
        """Apply one entry.

        Raises:
            UnsafePath: its name, or a link it goes through, leaves the root.
            UnsupportedEntry: no engine can unpack it.

        """
        self._entry = entry
        parts = self._parts(entry.name)
        if not parts:
            self._set_root(entry)
            return
        parent = self._parent(parts)
        name = parts[-1]
        if name == _OPAQUE:
            self.opaque.add(parent)
        elif name.startswith(_WHITEOUT) and not name.startswith(AUFS_PREFIX):
            self._whiteout(parent, name[len(_WHITEOUT) :])
        else:
            self._place(parent, name, entry)

    def _set_root(self, entry: Entry) -> None:
        if entry.kind != DIRECTORY:
            raise self._unsupported("replaces the root directory")
        # A container's root is a directory of its own layer, always 0755 and
        # root's; of the image's only the time is worth keeping.
        self.root.mtime_ns = entry.mtime_ns

    def _whiteout(self, parent: Node, name: bytes) -> None:
        if name in (b"", b".", b".."):
            raise UnsafePath(
                f"{self._name}: whiteout {self._entry.name!r} names no file; build it without"
            )
        if name in parent.children and not is_whiteout(parent.children[name]):
            raise self._unsupported("is the whiteout of a file of the same layer")
        parent.children[name] = Node(mode=stat.S_IFCHR)

    def _place(self, parent: Node, name: bytes, entry: Entry) -> None:
        children = parent.children
        if entry.kind == HARD_LINK:
            # The engine removes what has the name before it looks for the target.
            children.pop(name, None)
            children[name] = self._linked(entry)
            return
        kind = _KINDS[entry.kind]
        node = children.get(name)
        if node is None or not (kind == stat.S_IFDIR and node.is_directory):
            if kind == stat.S_IFLNK and not 0 < len(entry.link) <= _PATH_LIMIT:
                raise self._unsupported(f"has a target of {len(entry.link)} bytes")
            node = children[name] = Node(
                mode=kind,
                content=entry.content,
                target=b"",
                device=entry.device,
                layer=self._number,
            )
            if kind == stat.S_IFLNK:
                node.target = entry.link
            if entry.xattrs:
                node.xattrs = self._xattrs(entry, kind)
        elif entry.xattrs:
            # A directory that is named twice keeps what only the first time gave.
            node.xattrs = {**node.xattrs, **self._xattrs(entry, kind)}
        _set_metadata(node, entry)

    def _linked(self, entry: Entry) -> Node:
        target = self._parts(entry.link)
        node = self._find(self.root, target)
        if node is not None and not is_whiteout(node):
            if node.is_directory:
                raise self._unsupported("is a hard link to a directory")
            _set_metadata(node, entry)
            if entry.xattrs:
                node.xattrs = {**node.xattrs, **self._xattrs(entry, node.kind)}
            return node
        node = self._find(self._lower, target)
        if node is None:
            raise self._unsupported(f"is a hard link to {entry.link!r}, which does not exist")
        if node.is_directory:
            raise self._unsupported("is a hard link to a directory")
        return node

    def _find(self, root: Node, parts: list[bytes]) -> Node | None:
        """Return what a path names in the tree of ``root``, the last part not followed."""
        if not parts:
            return root
        parent = self._walk(root, parts[:-1], make=False)
        return parent.children.get(parts[-1]) if parent is not None else None

    def _parent(self, parts: list[bytes]) -> Node:
        """Return the directory an entry goes into; what is missing of it is made."""
        node = self.root
        # Nearly all entries take this way: real directories down to the parent.
        for part in parts[:-1]:
            child = node.children.get(part)
            if child is None or not child.is_directory:
                break
            node = child
        else:
            return node
        parent = self._walk(self.root, parts[:-1], make=True)
        if parent is None:
            raise self._unsupported("goes through a parent that is no directory")
        return parent

    def _walk(self, root: Node, parts: list[bytes], *, make: bool) -> Node | None:
        """Follow ``parts`` to a directory, symbolic links included.

        Returns None if it is not there.  With ``make``, missing parts of the path
        are made, but nothing that only a link names.
        """
        trail = [root]
        rest = parts[::-1]
        links = 0
        # So many steps at the bottom of ``rest`` are the path's, those above a link's.
        own = len(rest)
        while rest:
            part = rest.pop()
            is_own = len(rest) < own
            own = min(own, len(rest))
            if part == b"..":
                if len(trail) == 1:
                    raise UnsafePath(
                        f"{self._name}: entry {self._entry.name!r} goes through a link "
                        "that leaves the root; build the image without it"
                    )
                trail.pop()
                continue
            node = trail[-1].children.get(part)
            if node is None and make and is_own:
                node = self._implied(trail[-1], part)
            if node is None:
                return None
            if node.is_symlink:
                links += 1
                if links > _LINK_LIMIT:
                    raise self._unsupported("goes through too many symbolic links")
                if node.target.startswith(b"/"):
                    raise UnsafePath(
                        f"{self._name}: entry {self._entry.name!r} goes through {part!r}, a link "
                        f"to the absolute path {node.target!r}; build the image without it"
                    )
                rest += [step for step in node.target.split(b"/") if step not in (b"", b".")][::-1]
            elif node.is_directory:
                trail.append(node)
            else:
                return None
        return trail[-1]

    def _implied(self, parent: Node, name: bytes) -> Node:
        """Make a directory that an entry needs and no entry describes, as Docker does."""
        self._budget.take(self._name, DIRECTORY_MEMORY + len(name))
        node = parent.children[name] = Node(
            mode=stat.S_IFDIR | 0o755,
            # Docker gives it the time of unpacking, which would differ each time.
            mtime_ns=self._entry.mtime_ns,
        )
        return node

    def _parts(self, path: bytes) -> list[bytes]:
        """Return the components of a path in the archive, ``.`` and ``..`` resolved by name."""
        if len(path) > _PATH_LIMIT:
            raise self._unsupported(f"has a path of {len(path)} bytes", path[:60])
        parts = path.split(b"/")
        if b"" in parts or b"." in parts or b".." in parts:
            kept: list[bytes] = []
            for part in parts:
                if part == b"..":
                    if not kept:
                        raise UnsafePath(
                            f"{self._name}: entry {self._entry.name!r} names {path!r}, "
                            "which leaves the root; build the image without it"
                        )
                    kept.pop()
                elif part not in (b"", b"."):
                    kept.append(part)
            parts = kept
        if len(path) > _NAME_LIMIT and max(map(len, parts), default=0) > _NAME_LIMIT:
            raise self._unsupported("has a name of more than 255 bytes", path[:60])
        return parts

    def _xattrs(self, entry: Entry, kind: int) -> dict[bytes, bytes]:
        """Return those attributes that a container would see of an entry."""
        if not entry.xattrs:
            return {}
        kept = {}
        for name, value in entry.xattrs.items():
            if not 0 < len(name) <= _XATTR_NAME_LIMIT or len(value) > _XATTR_LIMIT:
                raise self._unsupported(f"has the impossible xattr {name[:60]!r}")
            # Docker passes these on, and overlayfs would obey: hide, redirect, or borrow data.
            if name.startswith(b"trusted.overlay."):
                raise UnsupportedEntry(
                    f"{self._name}: at byte {entry.at}: entry {entry.name!r} has the xattr "
                    f"{name!r}, which is overlayfs's own; build the image without it"
                )
            # The kernel has these on files and directories alone.
            if name.startswith(b"user.") and kind not in (stat.S_IFREG, stat.S_IFDIR):
                continue
            kept[name] = value
        return kept

    def _unsupported(self, problem: str, name: bytes | None = None) -> UnsupportedEntry:
        shown = self._entry.name if name is None else name
        return UnsupportedEntry(
            f"{self._name}: at byte {self._entry.at}: entry {shown!r} {problem}; "
            "engines cannot unpack it either, build the image without it"
        )


def _set_metadata(node: Node, entry: Entry) -> None:
    node.mode = node.kind | (0o777 if node.is_symlink else entry.mode)
    node.uid = entry.uid
    node.gid = entry.gid
    node.mtime_ns = entry.mtime_ns
