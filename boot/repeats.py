"""Reads that the kernel repeats when they have failed: one limit for all of them together."""

from __future__ import annotations

from time import monotonic

from store.errors import TimedOut

PAGE = 4096
KEPT_S = 1.0
"""The kernel repeats at once; who asks later than that has a limit of his own."""
KEPT = 64
"""Failed reads that are known, at most."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class RepeatedReads:
    """Reads of the image's bytes for a kernel.

    When a read ahead has failed, the kernel asks for its first page alone, and where EROFS
    stands above FUSE, for what comes behind it and then for the same page twice more.  Each
    of these would take the whole limit, and one read of a process as many times as long as
    was promised.
    """

    def __init__(self, read: Callable[[int, int], list[bytes | memoryview]]) -> None:
        """Read by ``read``: offset and size to pieces of bytes."""
        self._read = read
        self._failed: list[tuple[int, int, float, str]] = []
        """Offset, end, when it failed or last mattered, why.  Replaced as a whole: no lock."""

    def read(self, offset: int, size: int) -> list[bytes | memoryview]:
        """Return what ``read`` does.

        Raises:
            TimedOut: it took the limit, or is a part of what took it just now.
            BootfsError: as ``read``.

        """
        if self._failed:
            self._check(offset, size)
        begun_s = monotonic()
        try:
            return self._read(offset, size)
        except TimedOut as error:
            now = monotonic()
            # A process that waits for two reads waits for the later one to fail, and
            # only then does the kernel repeat the earlier one.
            self._failed = [
                (start, end, now if failed_s >= begun_s else failed_s, why)
                for start, end, failed_s, why in self._failed
            ]
            self._note(offset, size, now, str(error))
            raise

    def _check(self, offset: int, size: int) -> None:
        oldest = monotonic() - KEPT_S
        for start, end, failed_s, why in self._failed:
            if failed_s < oldest:
                continue
            # One of the same size may be another process's, which has not waited.
            if start <= offset and offset + size <= end and (size <= PAGE or size < end - start):
                raise TimedOut(why)
            if offset == end:
                self._note(offset, size, failed_s, why)
                raise TimedOut(why)

    def _note(self, offset: int, size: int, failed_s: float, why: str) -> None:
        self._failed = [*self._failed[1 - KEPT :], (offset, offset + size, failed_s, why)]
