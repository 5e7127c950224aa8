"""Random trees with everything in them that is hard to carry, and their files laid out.

The method is composefs's gendir: the same seed gives the same tree, and over a
few seeds every feature of `FEATURES` appears (a test says so).  Values stay
within what ext4 can hold too, so that a tree may also be made on disk, but for
xattrs: those here can be larger.
"""

from __future__ import annotations

import stat
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from random import Random

from converter.tree import Content, Node, Segment
from store.errors import SizeMismatch

_BLOCK = 4096
_PERMISSIONS = (0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0o7777, 0o000)
_NS = 1_000_000_000
_INLINE = _BLOCK - 64
"""The longest link or directory tail that fits behind an inode."""


class MemoryBlob:
    """A blob of given bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def pread(self, offset: int, size: int) -> bytes:
        found = self._data[offset : offset + size]
        if len(found) != size:
            raise SizeMismatch("memory blob", size, len(found))
        return found


def make_file(data: bytes, *, mode: int = 0o644) -> Node:
    """Return a regular file of given bytes."""
    segments = (Segment(0, len(data), MemoryBlob(data), 0),) if data else ()
    return Node(stat.S_IFREG | mode, content=Content(len(data), segments))


def make_directory(**children: Node) -> Node:
    """Return a directory 0755 with given entries."""
    return Node(
        stat.S_IFDIR | 0o755, children={name.encode(): child for name, child in children.items()}
    )


def make_link(target: bytes) -> Node:
    """Return a symbolic link."""
    return Node(stat.S_IFLNK | 0o777, target=target)


def iter_tree(root: Node) -> Iterator[tuple[bytes, Node]]:
    """Yield the path (``b""`` the root's, ``b"/etc"``) and node of everything, names in order."""
    stack = [(b"", root)]
    while stack:
        path, node = stack.pop()
        yield path, node
        children = node.children if node.is_directory else {}
        stack += [(path + b"/" + name, children[name]) for name in sorted(children, reverse=True)]


class DataRegion:
    """The contents of a tree's regular files one after the other, each from a block's start."""

    def __init__(self, root: Node) -> None:
        self.extents: dict[Node, int] = {}
        self.size = 0
        for _path, node in iter_tree(root):
            if node.is_regular and node.content.size and node not in self.extents:
                self.extents[node] = self.size
                self.size += -(-node.content.size // _BLOCK) * _BLOCK
        self._files = list(self.extents)
        self._starts = list(self.extents.values())

    def pread(self, offset: int, size: int) -> bytes:
        """Return bytes of the region, zeros between the files."""
        out = b""
        while size:
            at = bisect_right(self._starts, offset) - 1
            end = self._starts[at + 1] if at + 1 < len(self._starts) else self.size
            step = min(size, end - offset)
            found = self._files[at].content.pread(offset - self._starts[at], step)
            out += found + bytes(step - len(found))
            offset += step
            size -= step
        return out


def random_tree(random: Random, *, huge: bool = True) -> Node:
    """Return a tree of some tens to hundreds of nodes; each feature is in every third or so.

    A file of more than 4 GiB takes long to compare: it is in few trees, in none
    unless ``huge``.
    """
    root = _dress(random, Node(stat.S_IFDIR | 0o755))
    directories = [root]
    for _ in range(random.randrange(12)):
        directories.append(_add(random, directories, Node(stat.S_IFDIR)))
    for _ in range(random.randrange(40)):
        _add(random, directories, _random_file(random))
    for name, add in FEATURES.items():
        if random.random() < (0.03 * huge if name == "huge" else 0.35):
            add(random, directories)
    return root


def _random_name(random: Random) -> bytes:
    size = random.choice((1, 2, 3, 8, 8, 12, 20, 60))
    return bytes(random.choice(b"abcdefghijklmnopqrstuvwxyzA.-_+0123") for _ in range(size))


def _add(random: Random, directories: list[Node], node: Node, name: bytes = b"") -> Node:
    """Put a node with random attributes somewhere, under a name that is free there."""
    _dress(random, node)
    _link(random, directories, node, name)
    return node


def _link(random: Random, directories: list[Node], node: Node, name: bytes = b"") -> None:
    parent = random.choice(directories)
    while not name or name in parent.children or name in (b".", b".."):
        name = _random_name(random)
    parent.children[name] = node


def _dress(random: Random, node: Node) -> Node:
    """Give a node a random owner, time and permissions."""
    node.mode = node.kind | (0o777 if node.is_symlink else random.choice(_PERMISSIONS))
    node.uid = random.choice((0, 0, 1000, 65534, 65535, 65536, 0x7FFFFFFF, 0xFFFFFFFE))
    node.gid = random.choice((0, 0, 100, 65537, 0xFFFFFFFE))
    node.mtime_ns = random.choice(
        (
            0,
            1_700_000_000 * _NS,
            random.randrange(-(1 << 31) * _NS, 0),
            random.randrange(0, (1 << 33) * _NS),
            -1,
            -_NS,
        )
    )
    return node


def _random_file(random: Random) -> Node:
    sizes = (0, 1, 100, _BLOCK - 1, _BLOCK, _BLOCK + 1, 3 * _BLOCK, random.randrange(200_000))
    return make_file(random.randbytes(random.choice(sizes)))


def _add_sparse(random: Random, directories: list[Node]) -> None:
    size = random.randrange(1, 3_000_000)
    segments = []
    at = random.randrange(2) * random.randrange(size)
    while at < size:
        run = random.randrange(1, min(size - at, 50_000) + 1)
        prefix = random.randrange(100)
        blob = MemoryBlob(random.randbytes(prefix + run))
        segments.append(Segment(at, run, blob, prefix))
        at += run + random.randrange(1_000_000)
    node = Node(stat.S_IFREG, content=Content(size, tuple(segments)))
    _add(random, directories, node)


def _add_hollow(random: Random, directories: list[Node]) -> None:
    _add(random, directories, Node(stat.S_IFREG, content=Content(random.randrange(1, 100_000))))


def _add_huge(random: Random, directories: list[Node]) -> None:
    size = (4 << 30) + random.randrange(1, 100_000)
    tail = Segment(size - 1000, 1000, MemoryBlob(random.randbytes(1000)), 0)
    _add(random, directories, Node(stat.S_IFREG, content=Content(size, (tail,))))


def _add_special(kind: int) -> Callable[[Random, list[Node]], None]:
    def add(random: Random, directories: list[Node]) -> None:
        node = Node(kind)
        if node.is_device:
            # 0:0 is what overlayfs takes for a whiteout; never 0 here.
            major = random.choice((1, 8, 255, 256, 4095))
            node.device = major, random.choice((0, 3, 255, 256, 0xFFFFF))
        _add(random, directories, node)

    return add


def _add_symlinks(random: Random, directories: list[Node]) -> None:
    edges = (1, _INLINE - 1, _INLINE, _INLINE + 1, 4095)
    for size in (*edges, random.randrange(1, 100)):
        _add(random, directories, make_link(bytes(random.choices(b"a/.\xff\xc3\xa9", k=size))))


def _add_hard_links(random: Random, directories: list[Node]) -> None:
    for node in (
        _random_file(random),
        make_file(b"linked"),
        make_link(b"target"),
        Node(stat.S_IFIFO),
    ):
        _add(random, directories, node)
        for _ in range(random.randrange(1, 5)):
            _link(random, directories, node)


def _add_names(random: Random, directories: list[Node]) -> None:
    names = (
        b"n" * 255,
        bytes(random.randrange(128, 256) for _ in range(255)),
        "b\u00fccher".encode("latin-1"),
        b"\xff\xfe",
        b"new\nline",
        b" ",
        b"!",
        b"-rf",
        b"...",
        b"..a",
        b".-",
        b"\\x41",
        b"\x01\x7f",
        b".wh",
    )
    for name in names:
        node = Node(stat.S_IFDIR) if random.random() < 0.2 else _random_file(random)
        _add(random, [random.choice(directories)], node, name)


def _add_wide(random: Random, directories: list[Node]) -> None:
    wide = _add(random, directories, Node(stat.S_IFDIR))
    shared = make_file(b"one of many")
    for number in range(random.choice((120, 240, 3000))):
        wide.children[b"%05d" % number] = shared if number % 7 == 0 else make_file(b"")
    deep = wide
    for _ in range(random.randrange(60)):
        deep = _add(random, [deep], Node(stat.S_IFDIR))


def _add_full_blocks(random: Random, directories: list[Node]) -> None:
    """Add directories whose tails end on, just before and just behind what fits a block."""
    for spare in (-1, 0, 1, 64 - 1, 64, 64 + 1):
        directory = _add(random, directories, Node(stat.S_IFDIR))
        room = _BLOCK - spare - 2 * 12 - 3
        while room:
            size = 200 if room > 500 else room - 12 if room <= 212 else room // 2 - 12
            directory.children[b"%03d" % len(directory.children) + b"f" * (size - 3)] = make_file(
                b""
            )
            room -= size + 12


def acl_of(*entries: tuple[int, int, int]) -> bytes:
    """Return an ACL as xattrs hold it: tag, permissions and id of each entry."""
    packed = [struct.pack("<HHI", *entry) for entry in entries]
    return struct.pack("<I", 2) + b"".join(packed)


def _add_acls(random: Random, directories: list[Node]) -> None:
    nobody = 0xFFFFFFFF
    acl = acl_of(
        (0x01, 6, nobody),
        (0x02, random.randrange(8), random.randrange(1 << 31)),
        (0x04, 5, nobody),
        (0x08, 4, random.randrange(1 << 31)),
        (0x10, 7, nobody),
        (0x20, 4, nobody),
    )
    directory = _add(random, directories, Node(stat.S_IFDIR))
    file = _add(random, [directory], _random_file(random))
    for node in (directory, file):
        node.mode = node.kind | 0o674
        node.xattrs = {**node.xattrs, b"system.posix_acl_access": acl}
    directory.xattrs = {**directory.xattrs, b"system.posix_acl_default": acl}


def _add_xattrs(random: Random, directories: list[Node]) -> None:
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    _add(random, directories, make_file(b"ping")).xattrs = {b"security.capability": capability}
    for node in (
        _random_file(random),
        Node(stat.S_IFDIR, children={b"inside": make_file(b"")}),
        make_link(b"somewhere"),
    ):
        for number in range(random.randrange(1, 6)):
            prefix = random.choice((b"trusted.", b"security.", b"user."))
            if node.is_symlink:  # the VFS gives links no user.*
                prefix = b"trusted."
            name = prefix + _random_name(random) + b"%d" % number
            value = random.randbytes(random.choice((0, 1, 3, 4, 5, 100)))
            node.xattrs = {**node.xattrs, name: value}
        _add(random, directories, node)


def _add_large_xattrs(random: Random, directories: list[Node]) -> None:
    """Add nodes whose inode and xattrs fill most of a block, or several."""
    for size in (3900, 4000, 4040, 10_000, 65_000):
        for node in (
            _random_file(random),
            Node(stat.S_IFDIR, children={b"inside": make_file(b"inside")}),
            make_link(b"behind large xattrs"),
        ):
            _add(random, directories, node).xattrs = {b"trusted.large": random.randbytes(size)}


FEATURES: dict[str, Callable[[Random, list[Node]], None]] = {
    "sparse": _add_sparse,
    "hollow": _add_hollow,
    "huge": _add_huge,
    "fifo": _add_special(stat.S_IFIFO),
    "socket": _add_special(stat.S_IFSOCK),
    "character device": _add_special(stat.S_IFCHR),
    "block device": _add_special(stat.S_IFBLK),
    "symlinks": _add_symlinks,
    "hard links": _add_hard_links,
    "names": _add_names,
    "wide": _add_wide,
    "full blocks": _add_full_blocks,
    "acls": _add_acls,
    "xattrs": _add_xattrs,
    "large xattrs": _add_large_xattrs,
}
"""What each tree has or has not, by name."""
