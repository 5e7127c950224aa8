"""Memory for copies of ssh's keys, so that none ever lies on a disk.

Imported only where the store is one over SSH, by a daemon that may mount.
"""

from __future__ import annotations

import os

from boot.log import log
from boot.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount
from store.read.sshprogram import KEYS, LAYER


def provide_key_memory() -> None:
    """Mount a small tmpfs at `KEYS`, in this mount namespace, unless one is there.

    Without it a copy lies in the container's own root for as long as a login takes.
    """
    try:
        if os.stat(KEYS).st_dev == os.stat(LAYER).st_dev:
            options = b"size=1m,mode=0700"
            mount(b"tmpfs", KEYS.encode(), b"tmpfs", MS_NODEV | MS_NOEXEC | MS_NOSUID, options)
    except FileNotFoundError:
        return  # an image without ssh; who opens the store says so
    except OSError as error:
        log(f"no memory for copies of keys ({error.strerror}); they lie in {KEYS} for a moment")
