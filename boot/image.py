"""The files that the boot image's own layer brings: chunk index and bootstrap."""

from __future__ import annotations

import os

from boot.config import IMAGE
from store.errors import BootError, SizeMismatch
from store.format.chunkindex import ChunkIndex, parse_chunk_index
from store.format.digest import check_digest
from store.read.image import Bootstrap

REPAIR = "the boot image is damaged: pull it again, or convert the image again"


def open_index(expected: bytes) -> ChunkIndex:
    """Return the chunk index of this boot image.

    Raises:
        BootError: it is missing, damaged or not the one the boot config names.

    """
    path = f"{IMAGE}/chunk-index"
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.readall() or b""
    except OSError as error:
        raise BootError(f"{path}: {error.strerror}; {REPAIR}") from None
    check_digest(data, expected, path)
    return parse_chunk_index(data, is_verified=True)


def open_bootstrap(index: ChunkIndex) -> Bootstrap:
    """Return the bootstrap of this boot image, whose first frame is in order.

    Raises:
        BootError: it is missing; IntegrityError: it is not the one that ``index`` names.

    """
    path = f"{IMAGE}/bootstrap"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(fd).st_size
    except OSError as error:
        raise BootError(f"{path}: {error.strerror}; {REPAIR}") from None
    if size != index.frame_starts[-1]:
        raise SizeMismatch(path, index.frame_starts[-1], size)
    bootstrap = Bootstrap(fd, index)
    # Asked for in a moment anyway; here a damaged file is a line and not a failed mount.
    bootstrap.frame(0)
    return bootstrap
