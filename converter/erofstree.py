"""The tree as the bootstrap sees it: directories cut into blocks, links counted.

What EROFS cannot hold is found here, before anything is laid out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from converter.erofsxattrs import encode_xattrs
from store.errors import UnsupportedEntry
from store.format.erofslayout import (
    BLOCK,
    DIRENT,
    FILE_TYPES,
    MAX_MAJOR,
    MAX_MINOR,
    MAX_NAME,
    MAX_TARGET,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
)

if TYPE_CHECKING:
    from converter.tree import Node

_MAX_ID = 0xFFFFFFFE
_NS = 1_000_000_000
_TIMES_NS = range(-(1 << 63) * _NS, (1 << 63) * _NS)
_NOT_NAMES = (b"", b".", b"..")


@dataclass(slots=True)
class Directory:
    """A directory and how its entries fall into blocks."""

    node: Node
    names: list[bytes]
    """Names of the entries in byte order, ``.`` and ``..`` among them."""
    nodes: list[Node]
    """What each of the names stands for."""
    cuts: list[int]
    """For each block, the index behind its last entry."""
    size: int
    """Bytes of the directory: whole blocks, then what the last one uses."""
    leaves: list[Node]
    """The nodes other than directories whose first name in the tree is here."""


@dataclass(slots=True)
class Survey:
    """All that is known of a tree before places are given out."""

    directories: list[Directory] = field(default_factory=list)
    """Each before its subdirectories, these in the order of their names."""
    links: dict[Node, int] = field(default_factory=dict)
    """Link count of every node."""
    xattrs: dict[Node, bytes] = field(default_factory=dict)
    """Encoded xattrs of the nodes that have any."""


def survey_tree(root: Node) -> Survey:
    """Return what the bootstrap of the tree below ``root`` has to hold.

    Depends on names and nodes only, not on the order of any node's ``children``.

    Raises:
        UnsupportedEntry: something in the tree that EROFS cannot hold, or a
            directory under two names.

    """
    survey = Survey()
    if not root.is_directory:
        raise UnsupportedEntry("/: the root of an image must be a directory")
    stack = [(root, root, b"")]
    while stack:
        node, parent, path = stack.pop()
        if node in survey.links:
            raise UnsupportedEntry(
                f"{_show(path)}: this directory has another name already; "
                "only files can have several"
            )
        _check_attributes(survey, node, path)
        directory = _survey_directory(survey, node, parent, path)
        survey.directories.append(directory)
        named = zip(reversed(directory.names), reversed(directory.nodes), strict=True)
        subdirectories = [
            (child, node, path + b"/" + name)
            for name, child in named
            if child.mode & S_IFMT == S_IFDIR and name not in _NOT_NAMES
        ]
        survey.links[node] = 2 + len(subdirectories)
        stack += subdirectories
    return survey


def _survey_directory(survey: Survey, node: Node, parent: Node, path: bytes) -> Directory:
    """Return the directory; count the links of its entries and check those seen first."""
    for name in node.children:
        if len(name) > MAX_NAME or b"/" in name or b"\0" in name or name in _NOT_NAMES:
            raise UnsupportedEntry(
                f"{_show(path)}: {name[:64]!r} ({len(name)} bytes) cannot be the name of an entry, "
                f"which has 1 to {MAX_NAME} bytes, none of them '/' or zero"
            )
    by_name = {**node.children, b".": node, b"..": parent}
    # Parallel lists, not pairs: 10^5 more objects would double the collector's work.
    names = sorted(by_name)
    nodes = [by_name[name] for name in names]
    links = survey.links
    leaves = []
    for name, child in zip(names, nodes, strict=True):
        if child.mode & S_IFMT == S_IFDIR:
            continue
        if child in links:
            links[child] += 1
        else:
            links[child] = 1
            leaves.append(child)
            _check_leaf(survey, child, path, name)
    cuts, size = _cut_blocks(names)
    return Directory(node, names, nodes, cuts, size, leaves)


def _cut_blocks(names: list[bytes]) -> tuple[list[int], int]:
    """Fill blocks with as many entries as fit, in order; return their ends and the whole size."""
    cuts = []
    used = 0
    for index, name in enumerate(names):
        used += DIRENT.size + len(name)
        if used > BLOCK:
            cuts.append(index)
            used = DIRENT.size + len(name)
    size = len(cuts) * BLOCK + used
    cuts.append(len(names))
    return cuts, size


def _check_leaf(survey: Survey, node: Node, path: bytes, name: bytes) -> None:
    """Refuse a node other than a directory that cannot be represented."""
    kind = node.mode & S_IFMT
    if kind not in FILE_TYPES:
        raise UnsupportedEntry(f"{_show(path + b'/' + name)}: unknown kind, mode {node.mode:o}")
    if kind == S_IFLNK and not 0 < len(node.target) <= MAX_TARGET:
        raise UnsupportedEntry(
            f"{_show(path + b'/' + name)}: a link's target has 1 to {MAX_TARGET} bytes, "
            f"not {len(node.target)}"
        )
    if kind == S_IFLNK and b"\0" in node.target:
        raise UnsupportedEntry(f"{_show(path + b'/' + name)}: zero byte in the link's target")
    if kind in (S_IFCHR, S_IFBLK):
        major, minor = node.device
        if not (0 <= major <= MAX_MAJOR and 0 <= minor <= MAX_MINOR):
            raise UnsupportedEntry(
                f"{_show(path + b'/' + name)}: device {major}:{minor} is beyond "
                f"{MAX_MAJOR}:{MAX_MINOR}"
            )
    _check_attributes(survey, node, path, name)


def _check_attributes(survey: Survey, node: Node, path: bytes, name: bytes = b"") -> None:
    """Refuse numbers out of range, and encode the xattrs."""
    if not (0 <= node.uid <= _MAX_ID and 0 <= node.gid <= _MAX_ID):
        raise UnsupportedEntry(
            f"{_show(path + b'/' + name)}: owner {node.uid}:{node.gid} is beyond 32 bits"
        )
    if node.mtime_ns not in _TIMES_NS or node.mode >> 16:
        raise UnsupportedEntry(
            f"{_show(path + b'/' + name)}: time {node.mtime_ns} ns or mode {node.mode:o} "
            "is out of range"
        )
    if node.xattrs:
        survey.xattrs[node] = encode_xattrs(node.xattrs, _show(path + b"/" + name))


def _show(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace") or "/"
