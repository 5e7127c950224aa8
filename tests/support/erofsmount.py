"""image.erofs as a file, and the kernel's view of it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from converter.erofswriter import Bootstrap, write_bootstrap
from converter.tree import Node
from tests.support.trees import DataRegion

_MS_RDONLY = 1


def write_image(path: Path, root: Node) -> Bootstrap:
    """Write bootstrap and data region of a tree to a sparse file."""
    region = DataRegion(root)
    bootstrap = write_bootstrap(root, region.extents, region.size)
    with path.open("wb") as file:
        file.write(bootstrap.plain)
        file.truncate(bootstrap.data_start + region.size)
        for node, offset in region.extents.items():
            for segment in node.content.segments:
                file.seek(bootstrap.data_start + offset + segment.offset)
                file.write(segment.blob.pread(segment.blob_offset, segment.size))
    return bootstrap


@contextmanager
def mounted_erofs(image: Path, at: Path) -> Iterator[Path]:
    """Mount an image with mount(2), which unlike util-linux makes no loop device.

    The file must not lie on tmpfs or overlayfs: the kernel answers ENOTBLK.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    source, place = os.fsencode(image), os.fsencode(at)
    if libc.mount(source, place, b"erofs", ctypes.c_ulong(_MS_RDONLY), None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(image))
    try:
        yield at
    finally:
        if libc.umount2(place, 0):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(at))
