"""How PID 1 follows its child into the root that the child has made.

PID 1 never touches the lazy root itself: a read of it waits for the daemon, and who
waits cannot start the daemon again.  So the child makes the root in a mount
namespace of its own, and tells; PID 1 enters that namespace, where `docker exec`
is to land, and lets the child go on.
"""

from __future__ import annotations

import fcntl
import os

from boot.syscalls import CLONE_NEWNS, PR_SET_DUMPABLE, prctl, setns


class Joining:
    """Two pipes between PID 1 and its child; each side uses its own two methods."""

    __slots__ = ("_heard", "_hears", "_tells", "_told")

    def __init__(self) -> None:
        """Open the pipes, before the child is forked; news from it raises SIGIO here."""
        self._hears, self._tells = os.pipe()
        self._heard, self._told = os.pipe()
        fcntl.fcntl(self._hears, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(self._hears, fcntl.F_GETFL)
        fcntl.fcntl(self._hears, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)

    def begin_parent(self) -> None:
        """Keep the parent's ends alone: the parent's first call."""
        os.close(self._tells)
        os.close(self._heard)

    def begin_child(self) -> None:
        """Keep the child's ends alone: the child's first call."""
        os.close(self._hears)
        os.close(self._told)
        # Or PID 1, without CAP_SYS_PTRACE, could not open this process's namespace.
        prctl(PR_SET_DUMPABLE, 1)

    def tell_of_image(self) -> None:
        """Tell the child that the image is mounted."""
        os.write(self._told, b"1")

    def abandon(self, child: int) -> None:
        """End the child, which waits for an image that does not come."""
        os.close(self._told)
        os.close(self._hears)
        os.waitpid(child, 0)

    def wait_for_image(self) -> bool:
        """Return True when the image is mounted, False when PID 1 has ended instead."""
        return os.read(self._heard, 1) == b"1"

    def wait_for_parent(self) -> None:
        """Tell PID 1 that the root is made; return when it has come."""
        os.write(self._tells, b"1")
        os.read(self._heard, 1)
        os.close(self._tells)
        os.close(self._heard)

    def follow(self, child: int) -> bool:
        """Enter the child's mount namespace if it has told; return whether it did or ended."""
        try:
            told = os.read(self._hears, 1)
        except BlockingIOError:
            return False
        if told:
            namespace = os.open(f"/proc/{child}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            setns(namespace, CLONE_NEWNS)
            os.close(namespace)
            os.write(self._told, b"1")
        os.close(self._hears)
        os.close(self._told)
        return True
