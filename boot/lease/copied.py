"""What was copied into the container before its first start: it stays, as with the source image.

What an unfinished earlier start has left looks the same: files of the image, without contents.
So the first start notes what is there before it makes anything.
"""

from __future__ import annotations

import os

from boot.config import HOME
from boot.lease import journal
from boot.lease.skeleton import FROM_ENGINE, OF_ENGINE, explained
from boot.placeholder import is_placeholder
from store.errors import BootError

PATH = f"{HOME}/copied"
"""Paths of regular files from the root, each ended by a zero byte; no file where there are none."""
_STAGED = PATH + ".new"


class Copied:
    """What is in the root that this container's starts have not made."""

    __slots__ = ("_paths", "_were_earlier_starts", "placeholders")

    def __init__(self, hidden: set[bytes]) -> None:
        """Note it, or find what was noted.  ``hidden`` are paths on which something is mounted.

        To be called before there is a journal.

        Raises:
            BootError: the root cannot be written.

        """
        self._were_earlier_starts = os.path.lexists(journal.PATH)
        self._paths: set[bytes] = set()
        self.placeholders: dict[bytes, set[bytes]] = {}
        """Names at which one stands, by directory; none where there were earlier starts."""
        try:
            if self._were_earlier_starts:
                self._paths = _read()
            elif found := _find_files(hidden, self.placeholders):
                _write(found)
        except OSError as error:
            raise BootError(f"{PATH}: {error.strerror}; {journal.NEEDS_ROOT}") from None

    def has(self, path: bytes) -> bool:
        """Whether the regular file at ``path`` from the root, which is there, is to stay."""
        return not self._were_earlier_starts or path in self._paths


def _read() -> set[bytes]:
    try:
        with open(PATH, "rb", buffering=0) as file:
            return {*(file.readall() or b"").split(b"\0")} - {b""}
    except FileNotFoundError:
        return set()


def _write(paths: list[bytes]) -> None:
    with open(_STAGED, "wb", buffering=0) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(b"".join(path + b"\0" for path in paths))
        # What begins after this may be cut off with the machine's power.
        os.fsync(file.fileno())
    os.rename(_STAGED, PATH)


def _find_files(hidden: set[bytes], placeholders: dict[bytes, set[bytes]]) -> list[bytes]:
    """Return the regular files in the root that neither the boot image nor a mount has brought.

    Adds to ``placeholders``.
    """
    found = []
    todo = [b""]
    while todo:
        above = todo.pop()
        for entry in _entries(above):
            path = above + b"/" + entry.name if above else entry.name
            if path in hidden:
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append(path)
            elif entry.is_file(follow_symlinks=False) and not (
                path in FROM_ENGINE or path in OF_ENGINE
            ):
                if is_placeholder(entry.path):
                    placeholders.setdefault(above, set()).add(entry.name)
                else:
                    found.append(path)
    return found


def _entries(directory: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(b"/" + directory) as entries:
            return list(entries)
    except OSError as error:
        raise explained(directory, error) from None
