"""A trace of what this container reads, for profiles of the image (docs/profiles.md).

Imported only where BOOTFS_RECORD is set.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from time import monotonic, time

from store.format.chunkindex import BLOCK
from store.format.trace import ENTRY, ENTRY_LIMIT, encode_trace_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Recording:
    """Writes each read as it happens; may be used by many threads."""

    def __init__(
        self,
        path: str,
        image: bytes,
        command: list[bytes],
        limit_s: float,
        log: Callable[[str], None],
    ) -> None:
        """Begin a trace in the directory ``path`` of a cache, of ``limit_s`` at most.

        Raises:
            OSError: it cannot be written.

        """
        self._lock = allocate_lock()
        self._log = log
        self._limit_s = limit_s
        self._begun_s = 0.0
        self._left = ENTRY_LIMIT
        name = f"{path}/trace-{os.urandom(8).hex()}"
        self._fd = os.open(name, FLAGS, 0o600)
        try:
            os.write(self._fd, encode_trace_head(image, command, int(time())))
        except OSError:
            self._close()
            os.unlink(name)
            raise

    def saw(self, offset: int, size: int) -> None:
        """Note a read of ``image.erofs``, while that is wanted."""
        with self._lock:
            if self._fd < 0:
                return
            now = monotonic()
            self._begun_s = self._begun_s or now
            passed_s = now - self._begun_s
            if passed_s > self._limit_s or not self._left:
                self._close()
                return
            self._left -= 1
            first = offset // BLOCK
            pages = -(-(offset + size) // BLOCK) - first
            try:
                # One write appends whole: who reads meanwhile sees no half entry.
                os.write(self._fd, ENTRY.pack(int(passed_s * 1000), first, pages))
            except OSError as error:
                self._log(
                    f"recording ends here: {error.strerror}; what is written of it can be used"
                )
                self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)
