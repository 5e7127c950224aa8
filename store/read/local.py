"""A store that is a directory on this machine."""

from __future__ import annotations

import os

from store.errors import AccessDenied, PackNotFound, SizeMismatch, Unreachable

STREAM_PIECE = 128 << 10
"""What is read at once of an object that is used while it is read."""


class DirectorySource:
    """Objects as files below one directory.

    The directory is opened at once and held, so that a boot may lose the path
    and keep the store.
    """

    read_ahead = 0

    def __init__(self, path: str) -> None:
        self.location = path
        try:
            self._directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError as error:
            raise AccessDenied(f"store {path}: {error.strerror}") from None
        except OSError as error:
            raise Unreachable(
                f"store {path}: {error.strerror}; is it mounted at this path?"
            ) from None

    def close(self) -> None:
        """Let the directory go; no fetch may be under way or follow."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def dial(self) -> None:
        """Do nothing: a directory is always near."""

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        """Return exactly ``size`` bytes of object ``name``; see `Source`."""
        fd = self._open(name)
        try:
            data = os.pread(fd, size, offset)
        except OSError as error:
            raise Unreachable(f"{self.location}/{name}: {error.strerror}") from None
        finally:
            os.close(fd)
        if len(data) != size:
            raise SizeMismatch(f"{self.location}/{name} from {offset}", size, len(data))
        if arrived is not None:
            arrived(memoryview(data))
        return data

    def stream(self, name: str, limit: int, arrived: Callable[[memoryview], None]) -> int:
        """Give ``arrived`` a whole object, in pieces; see `Streaming`."""
        where = f"{self.location}/{name}"
        fd = self._open(name)
        try:
            size = os.fstat(fd).st_size
            if size > limit:
                raise SizeMismatch(where, limit, size)
            at = 0
            while at < size:
                data = os.pread(fd, min(size - at, STREAM_PIECE), at)
                if not data:
                    raise SizeMismatch(where, size, at)
                arrived(memoryview(data))
                at += len(data)
        except OSError as error:
            raise Unreachable(f"{where}: {error.strerror}") from None
        finally:
            os.close(fd)
        return size

    def _open(self, name: str) -> int:
        """Open an object's file, which the caller closes.

        Raises:
            PackNotFound, AccessDenied, Unreachable: it cannot be.

        """
        try:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        except (FileNotFoundError, NotADirectoryError):
            raise PackNotFound(f"store {self.location} has no {name}") from None
        except PermissionError as error:
            raise AccessDenied(f"{self.location}/{name}: {error.strerror}") from None
        except OSError as error:
            raise Unreachable(f"{self.location}/{name}: {error.strerror}") from None

    def fetch_once(
        self,
        name: str,
        offset: int,
        size: int,
        arrived: Callable[[memoryview], None] | None,
        limit_s: float,
        patience_s: float,
    ) -> bytes:
        """Do the same; nothing limits how long a disk takes.  See `Mirror`."""
        return self.fetch(name, offset, size, arrived)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
