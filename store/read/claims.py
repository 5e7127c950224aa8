"""Who of all containers on a cache fetches a chunk, so that the others need not.

Implements docs/format.md, "Cache, layout 2".  A claim is a line in a table, in one file,
that says until when it holds, by the clock that all containers of a machine share
(CLOCK_MONOTONIC).  Who fetches renews it while bytes arrive; when it is stopped or
killed the claim runs out, and others go on; a daemon that takes the place of one that
died does at once, since claims are its container's.  A lock is held for the moment of
claiming alone, and nobody waits for it.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from struct import Struct
from time import monotonic

from store.read.cache import FLAGS

CLAIM_S = 2.0
"""How long a claim holds without a byte that arrives: so long may who has died delay others."""
LINE = Struct("<8sdQ")
"""First bytes of the chunk's digest, the end of the claim, and whose it is."""
BUCKETS = 1 << 11
WAYS = 4
"""8,192 claims at once; who finds no line fetches without one."""

# Locks of a file keep no thread of this process out.
_threads = allocate_lock()


class Claims:
    """The table of one cache.  May be used by many threads and processes at once."""

    def __init__(self, root: int, owner: int = 0) -> None:
        """Open, and make where missing, the table in the open directory ``root``.

        ``owner`` is a number of this container's, by default that of its mount namespace.

        Raises:
            OSError: it cannot be opened.

        """
        self._owner = owner or os.stat("/proc/self/ns/mnt").st_ino
        self._fd = os.open("claims", FLAGS, 0o600, dir_fd=root)
        self._mine: dict[bytes, tuple[int, bytes]] = {}
        """Digest to place and bytes of the line that was written for it."""

    def close(self) -> None:
        """Close the table; no call may be under way or follow."""
        os.close(self._fd)

    def is_free(self, digest: bytes) -> bool:
        """Whether nobody holds a claim on the chunk ``digest``."""
        return self._look(digest, monotonic())[0]

    def take(self, digest: bytes) -> bool:
        """Claim the chunk ``digest``; return False when somebody else does, or has."""
        with _threads:
            if not self._lock(_bucket(digest)):
                return False
            try:
                now = monotonic()
                is_free, place = self._look(digest, now)
                if is_free and place >= 0:
                    line = LINE.pack(digest[:8], now + CLAIM_S, self._owner)
                    os.pwrite(self._fd, line, place)
                    self._mine[digest] = place, line
            finally:
                os.lockf(self._fd, os.F_ULOCK, LINE.size)
        return is_free

    def _lock(self, place: int) -> bool:
        """Lock a bucket by its first line; return False when another container has it locked."""
        os.lseek(self._fd, place, os.SEEK_SET)
        try:
            os.lockf(self._fd, os.F_TLOCK, LINE.size)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def renew(self, digest: bytes) -> None:
        """Have a claim of ours hold from now on, if it is still ours."""
        self._replace(digest, LINE.pack(digest[:8], monotonic() + CLAIM_S, self._owner))

    def release(self, digest: bytes) -> None:
        """End a claim of ours, if there is one."""
        self._replace(digest, bytes(LINE.size))
        self._mine.pop(digest, None)

    def _replace(self, digest: bytes, line: bytes) -> None:
        mine = self._mine.get(digest)
        if mine is not None and os.pread(self._fd, LINE.size, mine[0]) == mine[1]:
            os.pwrite(self._fd, line, mine[0])
            self._mine[digest] = mine[0], line

    def _look(self, digest: bytes, now: float) -> tuple[bool, int]:
        """Return whether nobody holds a claim, and the place of a line to use; -1: there is none.

        An end further away than a claim can be is left from before the machine was started.
        """
        at = _bucket(digest)
        bucket = os.pread(self._fd, WAYS * LINE.size, at).ljust(WAYS * LINE.size, b"\0")
        place = -1
        for way, (mark, end, owner) in enumerate(LINE.iter_unpack(bucket)):
            if not now < end <= now + CLAIM_S:
                if place < 0:
                    place = at + way * LINE.size
            elif mark == digest[:8]:
                is_ours = owner == self._owner
                return is_ours, at + way * LINE.size if is_ours else -1
        return True, place


def _bucket(digest: bytes) -> int:
    return int.from_bytes(digest[:4], "little") % BUCKETS * WAYS * LINE.size
