"""What starts of an image wanted first, kept in its cache for the next start on this machine.

A list of parts, in the order in which they were first read: four bytes each,
little-endian, a place of the data region, or a bootstrap frame with the highest
bit set.  It only says what to read early, so nothing here is trusted and a list
that is wrong costs time.  Every container adds what it finds missing, up to a limit.
"""

from __future__ import annotations

import os

FRAME_BIT = 1 << 31
LIMIT = 16384
"""Parts at most: some 1 GB of data, more than starts read."""
FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class StartOrder:
    """The list of one image; for one thread at a time, and many processes at once."""

    def __init__(self, path: str) -> None:
        """Open, and make where missing, the list in directory ``path`` of a cache.

        Raises:
            OSError: it cannot be opened.

        """
        self._fd = os.open(f"{path}/order", FLAGS, 0o600)
        data = os.pread(self._fd, LIMIT * 4, 0)
        self.parts = [
            int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data) - 3, 4)
        ]
        """As it was found; numbers may be out of range."""
        self._known = set(self.parts)

    def add(self, part: int) -> None:
        """Add a part that was read, if it is new and there is room.

        Raises:
            OSError: the disk is full; the list stays as it was.

        """
        if part in self._known or len(self._known) >= LIMIT:
            return
        self._known.add(part)
        # One write appends whole: readers never see half a number of ours.
        os.write(self._fd, part.to_bytes(4, "little"))
