"""Where each inode of a tree comes to lie in the bootstrap.

How many 4096-byte pages of metadata a cold start touches is decided here, and
each page missed costs a round through the daemon.  A depth-first walk is cut
into neighbourhoods of some `NEIGHBOURHOOD` files.  In each:

*   Directories (inode and entries) lie together, in the order of the walk: what
    only lists or resolves names, such as ``find``, touches no page of files.
*   All other inodes follow in the order of their first names, those of one
    directory side by side.  They first fill what room is left in the
    directories' pages where an inline tail did not fit.

Measured on a /usr of 139,000 inodes, in pages for ``find`` and, for starting
pip, gcc, bash and perl, in 256 KiB frames of the shipped bootstrap: as above
1,640 and 7-8; one neighbourhood of all 1,563 and 11-16; files right behind each
directory 2,732 and 7-8.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from store.format.erofslayout import BLOCK, FIRST_NID, INODE, SLOT, round_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from converter.erofstree import Survey
    from converter.tree import Node


NEIGHBOURHOOD = 1024
"""After how many files waiting for a place their directories are followed by them."""


@dataclass(slots=True)
class Plan:
    """The places of all inodes, and of the contents that lie in the bootstrap."""

    nids: dict[Node, int] = field(default_factory=dict)
    """Every node's inode number."""
    blocks: dict[Node, int] = field(default_factory=dict)
    """First block of the directories and links that have blocks of their own."""
    inline: set[Node] = field(default_factory=set)
    """Directories and links whose last bytes lie behind their inode and its xattrs."""
    end_block: int = 1
    """Number of blocks of the bootstrap."""


def plan_places(survey: Survey) -> Plan:
    """Return the places of every inode of the tree; the same tree has the same places."""
    placer = _Placer(survey.xattrs)
    waiting: deque[Node] = deque()
    for directory in survey.directories:
        while waiting and not placer.fits(directory.node, directory.size):
            leaf = waiting[0]
            if not placer.fits(leaf, _link_size(leaf)):
                break
            placer.place(leaf, _link_size(leaf))
            waiting.popleft()
        placer.place(directory.node, directory.size)
        waiting.extend(directory.leaves)
        if len(waiting) >= NEIGHBOURHOOD:
            placer.place_all(waiting)
            waiting.clear()
    placer.place_all(waiting)
    return placer.plan


class _Placer:
    """Gives out the bootstrap's bytes once each: inodes side by side, blocks whole.

    ``contents`` is the size of what a node has of contents in the bootstrap.
    """

    def __init__(self, xattrs: Mapping[Node, bytes]) -> None:
        self.plan = Plan()
        self._xattrs = xattrs
        self._next = FIRST_NID * SLOT
        self._limit = BLOCK

    def fits(self, node: Node, contents: int) -> bool:
        """Whether the block that is being filled has room for a node's inode and tail."""
        return self._next + self._measure(node, contents)[0] <= self._limit

    def place(self, node: Node, contents: int) -> None:
        """Give an inode and its contents their places."""
        plan = self.plan
        size, is_inline = self._measure(node, contents)
        at = self._next
        if at + size > self._limit:
            at = self._take_blocks(round_up(size, BLOCK) // BLOCK) * BLOCK
            self._limit = plan.end_block * BLOCK
        self._next = round_up(at + size, SLOT)
        plan.nids[node] = at // SLOT
        if is_inline:
            plan.inline.add(node)
            contents -= contents % BLOCK
        if contents:
            plan.blocks[node] = self._take_blocks(round_up(contents, BLOCK) // BLOCK)

    def place_all(self, leaves: Iterable[Node]) -> None:
        """Place nodes that are not directories, in order."""
        for leaf in leaves:
            self.place(leaf, _link_size(leaf))

    def _measure(self, node: Node, contents: int) -> tuple[int, bool]:
        """Return the bytes of a node's inode, xattrs and tail, and whether there is a tail.

        A tail must not cross a block, and kernels have refused a link whose tail
        lies in another block than its inode: all of it fits in one, or has no tail.
        """
        size = INODE.size
        if node in self._xattrs:
            size += len(self._xattrs[node])
        tail = contents % BLOCK
        if tail and size + tail <= BLOCK:
            return size + tail, True
        return size, False

    def _take_blocks(self, count: int) -> int:
        """Return the first of ``count`` consecutive blocks."""
        first = self.plan.end_block
        self.plan.end_block += count
        return first


def _link_size(node: Node) -> int:
    return len(node.target) if node.is_symlink else 0
