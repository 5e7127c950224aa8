"""What a hot pack brings before the files are there that it is for.

It may be more than memory should hold, and comes faster than files are filled.  So it goes
to a file that has no name, and so nobody else can open, and is the kernel's to write out or not.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class AsideFile:
    """Plain bytes of chunks; see `store.interfaces.Aside`."""

    def __init__(self, directory: str, log: Callable[[str], None]) -> None:
        """Begin without any, in a file of ``directory`` for as long as it takes.

        Raises:
            OSError: it cannot be made.

        """
        self._log = log
        self._lock = allocate_lock()
        self._places: dict[int, tuple[int, int]] = {}
        """Offset and size, by chunk."""
        self._end = 0
        self._is_full = False
        name = f"{directory}/aside-{os.urandom(8).hex()}"
        self._fd = os.open(name, FLAGS, 0o600)
        os.unlink(name)

    def put(self, chunk: int, plain: bytes) -> bool:
        """Keep a chunk's plain bytes; whether there was room."""
        with self._lock:
            if self._fd < 0 or self._is_full:
                return False
            try:
                whole = os.pwrite(self._fd, plain, self._end) == len(plain)
            except OSError as error:
                whole = False
                self._log(f"no room for what comes ahead ({error.strerror}): fetched when wanted")
            if not whole:
                self._is_full = True
                return False
            self._places[chunk] = self._end, len(plain)
            self._end += len(plain)
            return True

    def has(self, chunk: int) -> bool:
        """Whether it was kept."""
        return chunk in self._places

    def get(self, chunk: int) -> bytes | None:
        """Return what was kept; None where nothing is."""
        with self._lock:
            place = self._places.get(chunk)
            if place is None:
                return None
            offset, size = place
            try:
                return os.pread(self._fd, size, offset)
            except OSError as error:
                del self._places[chunk]
                self._log(f"what came ahead cannot be read ({error.strerror}): fetched again")
                return None

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._places.clear()
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)
