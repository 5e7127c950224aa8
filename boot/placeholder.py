"""The boot image's placeholders: what stands at names of programs until those are there.

The converter puts hard links to one small program there (boot/launcher/placeholder.S).  Engines
copy them into new volumes too.
"""

from __future__ import annotations

import os
import stat

from boot.config import HOME, IMAGE

PATH = f"{IMAGE}/placeholder"
BUILT = f"{HOME}/built"
"""The file that placeholders wait for: the tree is made, and they are gone from it."""


def is_placeholder(path: bytes | str) -> bool:
    """Whether one is at ``path``, links not followed."""
    try:
        own, found = os.stat(PATH), os.lstat(path)
    except OSError:
        return False
    if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino):
        return True
    # A copy of it, in a volume or of an engine that keeps no hard links.
    if not stat.S_ISREG(found.st_mode) or found.st_size != own.st_size:
        return False
    return _read(path) == _read(PATH)


def _read(path: bytes | str) -> bytes:
    with open(path, "rb", buffering=0, opener=_open) as file:
        return file.readall() or b""


def _open(path: str, flags: int) -> int:
    # Neither through a link, nor for something that waits to be filled.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
