"""What a tree shows to whoever looks at it, in one form for every way to look.

`dump_tree` takes a tree in memory, `dump_directory` a mounted one, `dump_image`
the bootstrap read back; `compare` lists where two of them differ.  The method is
composefs's dumpdir: every byte, every attribute, link groups, and nothing that a
copy may change (inode numbers, ctime, sizes of directories).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields

from converter.tree import Content, Node
from store.errors import FormatError
from store.format.erofs import Image, Inode
from tests.support.trees import iter_tree

_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)
_ZEROS_DIGEST = hashlib.sha256(_ZEROS).digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a tree."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    nlink: int
    size: int
    """Of regular files and links, 0 for all others."""
    device: tuple[int, int]
    target: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]
    digest: str
    """Of a regular file's contents."""
    first_name: bytes
    """The first path, in the order of the walk, of the same inode."""


def dump_tree(root: Node) -> dict[bytes, Entry]:
    """Return what the tree in memory shows."""
    links: dict[Node, int] = {}
    first_names: dict[Node, bytes] = {}
    for path, node in iter_tree(root):
        links[node] = links.get(node, 0) + 1
        first_names.setdefault(node, path)
    entries = {}
    for path, node in iter_tree(root):
        subdirectories = sum(child.is_directory for child in node.children.values())
        entries[path] = Entry(
            mode=node.mode,
            uid=node.uid,
            gid=node.gid,
            mtime_ns=node.mtime_ns,
            nlink=2 + subdirectories if node.is_directory else links[node],
            size=node.content.size if node.is_regular else len(node.target),
            device=node.device if node.is_device else (0, 0),
            target=node.target,
            xattrs=tuple(sorted(node.xattrs.items())),
            digest=_digest_content(node.content) if node.is_regular else "",
            first_name=first_names[node],
        )
    return entries


def dump_directory(
    top: str | bytes | os.PathLike[str], *, skip: Collection[bytes] = ()
) -> dict[bytes, Entry]:
    """Return what a mounted tree shows; ``skip`` names paths (``b"/proc"``) to leave out."""
    base = os.fsencode(top)
    entries: dict[bytes, Entry] = {}
    first_names: dict[tuple[int, int], bytes] = {}
    stack = [b""]
    while stack:
        path = stack.pop()
        place = base + path
        status = os.lstat(place or b"/")
        target = os.readlink(place) if stat.S_ISLNK(status.st_mode) else b""
        is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        names = os.listxattr(place or b"/", follow_symlinks=False)
        entries[path] = Entry(
            mode=status.st_mode,
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            nlink=status.st_nlink,
            size=0 if stat.S_ISDIR(status.st_mode) else status.st_size,
            device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
            target=target,
            xattrs=tuple(
                sorted(
                    (os.fsencode(name), os.getxattr(place or b"/", name, follow_symlinks=False))
                    for name in names
                )
            ),
            digest=_digest_file(place) if stat.S_ISREG(status.st_mode) else "",
            first_name=first_names.setdefault((status.st_dev, status.st_ino), path),
        )
        if stat.S_ISDIR(status.st_mode):
            below = [path + b"/" + name for name in sorted(os.listdir(place or b"/"), reverse=True)]
            stack += [path for path in below if path not in skip]
    return entries


def dump_image(image: Image, read: Callable[[int, int], bytes]) -> dict[bytes, Entry]:
    """Return what a bootstrap says; ``read`` gives bytes of image.erofs at an offset.

    Raises:
        FormatError: the bootstrap is damaged, or a directory has two names.

    """
    entries: dict[bytes, Entry] = {}
    first_names: dict[int, bytes] = {}
    entered: set[int] = set()
    stack = [(b"", image.root_nid)]
    while stack:
        path, nid = stack.pop()
        inode = image.inode(nid)
        entries[path] = Entry(
            mode=inode.mode,
            uid=inode.uid,
            gid=inode.gid,
            mtime_ns=inode.mtime_s * 1_000_000_000 + inode.mtime_ns,
            nlink=inode.nlink,
            size=0 if stat.S_ISDIR(inode.mode) else inode.size,
            device=inode.rdev,
            target=image.readlink(inode) if stat.S_ISLNK(inode.mode) else b"",
            xattrs=tuple(sorted(image.xattrs(inode).items())),
            digest=_digest_inode(inode, read) if stat.S_ISREG(inode.mode) else "",
            first_name=first_names.setdefault(nid, path),
        )
        if stat.S_ISDIR(inode.mode):
            if nid in entered:
                raise FormatError("bootstrap", nid * 32, f"directory {nid} has two names")
            entered.add(nid)
            below = [
                (path + b"/" + name, child)
                for name, child, _type in image.iter_dir(inode)
                if name not in (b".", b"..")
            ]
            stack += reversed(below)
    return entries


def compare(
    expected: Mapping[bytes, Entry],
    actual: Mapping[bytes, Entry],
    *,
    directory_links: bool = True,
) -> list[str]:
    """Return one line for each difference; overlayfs needs ``directory_links`` false.

    (It counts one link for every directory.)
    """
    lines = [f"{path!r}: missing" for path in expected if path not in actual]
    lines += [f"{path!r}: not expected" for path in actual if path not in expected]
    for path, want in expected.items():
        have = actual.get(path, want)
        for field in fields(Entry):
            if field.name == "nlink" and stat.S_ISDIR(want.mode) and not directory_links:
                continue
            left, right = getattr(want, field.name), getattr(have, field.name)
            if left != right:
                lines.append(f"{path!r}: {field.name} is {right!r:.200}, expected {left!r:.200}")
    return lines


def _digest_pieces(pieces: Iterable[bytes]) -> str:
    """Return a digest over the digests of 1 MiB pieces: cheap for gigabytes of zeros."""
    whole = hashlib.sha256()
    for piece in pieces:
        is_zero = piece == _ZEROS
        whole.update(_ZEROS_DIGEST if is_zero else hashlib.sha256(piece).digest())
    return whole.hexdigest()


def _digest_content(content: Content) -> str:
    def pieces() -> Iterable[bytes]:
        for at in range(0, content.size, _PIECE):
            end = at + _PIECE
            touched = any(
                segment.offset < end and at < segment.offset + segment.size
                for segment in content.segments
            )
            yield content.pread(at, _PIECE) if touched or end > content.size else _ZEROS

    return _digest_pieces(pieces())


def _digest_file(path: bytes) -> str:
    with open(path, "rb", buffering=0) as file:
        return _digest_pieces(iter(lambda: file.read(_PIECE), b""))


def _digest_inode(inode: Inode, read: Callable[[int, int], bytes]) -> str:
    return _digest_pieces(
        read(inode.data_offset + at, min(_PIECE, inode.size - at))
        for at in range(0, inode.size, _PIECE)
    )
