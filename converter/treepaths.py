"""Paths in the tree of an image, links followed inside it as the kernel follows them."""

from __future__ import annotations

from collections.abc import Iterator

from converter.tree import Node

LINK_LIMIT = 40
"""Symbolic links followed in one path before it is a loop, as the kernel has it."""


def find(tree: Node, path: bytes) -> Node | None:
    """Return the node at ``path``, links followed inside the tree, or None."""
    stack = [tree]
    todo = [part for part in reversed(path.split(b"/")) if part]
    links = 0
    while todo:
        part = todo.pop()
        if part == b".":
            continue
        if part == b"..":
            if len(stack) > 1:
                stack.pop()
            continue
        node = stack[-1].children.get(part) if stack[-1].is_directory else None
        if node is None:
            return None
        if not node.is_symlink:
            stack.append(node)
            continue
        links += 1
        if links > LINK_LIMIT:
            return None
        if node.target.startswith(b"/"):
            del stack[1:]
        todo.extend(p for p in reversed(node.target.split(b"/")) if p)
    return stack[-1]


def resolve(tree: Node, path: bytes) -> list[bytes]:
    """Return where ``path`` leads in the tree, links followed, as names from the root.

    What does not exist follows as it stands; a loop of links ends where it is noticed.
    """
    stack: list[tuple[bytes, Node | None]] = []
    todo = [part for part in reversed(path.split(b"/")) if part]
    links = 0
    while todo:
        part = todo.pop()
        if part in (b".", b".."):
            if part == b"..":
                del stack[-1:]
            continue
        above = stack[-1][1] if stack else tree
        is_known = above is not None and above.is_directory
        node = above.children.get(part) if above is not None and is_known else None
        if node is None or not node.is_symlink or links == LINK_LIMIT:
            stack.append((part, node))
            continue
        links += 1
        if node.target.startswith(b"/"):
            stack.clear()
        todo.extend(p for p in reversed(node.target.split(b"/")) if p)
    return [name for name, _ in stack]


def trace(tree: Node, path: bytes) -> Iterator[tuple[bytes, Node]]:
    """Yield what is met on the way from the root to ``path``, links and what they lead to too.

    It ends where nothing is, and where links make a loop.
    """
    stack: list[tuple[bytes, Node]] = [(b"", tree)]
    todo = [part for part in reversed(path.split(b"/")) if part]
    links = 0
    while todo:
        part = todo.pop()
        above, directory = stack[-1]
        if not directory.is_directory:
            return
        if part in (b".", b".."):
            if part == b".." and len(stack) > 1:
                stack.pop()
            continue
        node = directory.children.get(part)
        if node is None:
            return
        place = above + b"/" + part if above else part
        yield place, node
        if not node.is_symlink:
            stack.append((place, node))
            continue
        links += 1
        if links > LINK_LIMIT:
            return
        if node.target.startswith(b"/"):
            del stack[1:]
        todo.extend(p for p in reversed(node.target.split(b"/")) if p)
