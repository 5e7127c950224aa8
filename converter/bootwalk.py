"""Every path of a boot image's tree, with its inode."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from store.format.erofs import Image, Inode


def iter_paths(image: Image) -> Iterator[tuple[bytes, Inode]]:
    """Yield each path and its inode, names in order, a directory before what is in it.

    The root is ``/``; a file with several names comes once for each.  The image's structure
    must have been checked: no directory is in itself.

    Raises:
        FormatError: the bootstrap is damaged.

    """
    pending = [(b"/", image.root_nid)]
    while pending:
        path, nid = pending.pop()
        inode = image.inode(nid)
        yield path, inode
        if stat.S_ISDIR(inode.mode):
            base = path if path.endswith(b"/") else path + b"/"
            names = [(n, i) for n, i, _ in image.iter_dir(inode) if n not in (b".", b"..")]
            pending += [(base + name, child) for name, child in reversed(names)]
