"""Mode ``fuse``: the whole tree served by pyfuse3, for kernels that cannot mount EROFS from a file.

The tree is the same bootstrap, parsed in memory, and file data comes the same
way as in mode ``erofs``.  Slower, because every lookup is a request to Python, and
not to be respawned: libfuse cannot take over a mount that another process made,
so when the daemon dies, the kernel ends the connection, and what is not in memory fails
with ENOTCONN.

Trio and pyfuse3 are imported here alone, in the daemon, after the fork.
"""

from __future__ import annotations

import gc
import os

from boot.config import Settings
from boot.modes.erofs import LOWER
from boot.spawn import open_fuse, spawn_daemon
from boot.status import Status
from boot.supervise import Daemon
from store.format.status import SERVED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def start(settings: Settings, status: Status) -> Daemon:
    """Mount the tree read-only at `LOWER`, served by a new daemon, which counts in ``status``.

    Raises:
        MountFailed, BootError: the daemon could not mount it.

    """

    def act(told: Callable[[BaseException | None], None]) -> None:
        from boot.modes.fuseserver import serve_tree

        def mounted() -> None:
            status.step(SERVED)
            told(None)
            gc.freeze()
            gc.enable()

        serve_tree(settings, LOWER, status.memory, mounted)

    # libfuse does not say that this is what it lacks.
    os.close(open_fuse())
    spawned = spawn_daemon(act)
    spawned.wait_until_mounted(failed=lambda: None)
    return Daemon(spawned.pid, respawn=None, give_up=lambda: None, answers=lambda: 0)
