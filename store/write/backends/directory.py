"""A store in a directory of this machine."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, EINVAL, ENOLCK, ENOSPC, ENOSYS, EOPNOTSUPP, EROFS
from pathlib import Path
from threading import Lock

from store.errors import AccessDenied, BootfsError, NotFound, PackNotFound, StorageFull, UsageError
from store.format.names import STORE_MARK, STORE_MARK_TEXT
from store.read.local import DirectorySource

PART = ".part"
"""End of the name of a file that is still being written."""
_NO_LOCKS = (EINVAL, ENOLCK, ENOSYS, EOPNOTSUPP)
"""What flock(2) gives on file systems that have no locks."""


class DirectoryBackend:
    """Objects as files below ``path``, readable by any web server that is pointed at it."""

    read_ahead = 0

    def __init__(self, path: str) -> None:
        self.location = path
        self._root = Path(path)
        self._source: DirectorySource | None = None
        self._lock = Lock()

    def check(self) -> None:
        """Return when a store is there or can be made; see `Backend`."""
        try:
            self._is_made()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _translated(error, self.location) from None

    def create(self) -> None:
        """Make the store; see `Backend`."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            if not self._is_made():
                self._write_file(self._root / STORE_MARK, iter((STORE_MARK_TEXT,)))
        except OSError as error:
            raise _translated(error, self.location) from None

    def _is_made(self) -> bool:
        """Whether the directory is a store, and not just empty.

        Raises:
            UsageError: it is something else.
            OSError: there is none, or it cannot be read.

        """
        mark = self._root / STORE_MARK
        if mark.exists():
            found = mark.read_bytes()
            if found != STORE_MARK_TEXT:
                raise UsageError(
                    f"{self.location}: a store of another version ({found[:40]!r}); "
                    "use another directory"
                )
            return True
        # A .part is the mark that a creation before was killed at.
        if any(entry.suffix != PART for entry in self._root.iterdir()):
            raise UsageError(
                f"{self.location}: not empty and not a bootfs store; use another directory"
            )
        return False

    def dial(self) -> None:
        """Do nothing: a directory is always near."""

    def close(self) -> None:
        """Let the directory go."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        """Return bytes of an object; see `Source`."""
        with self._lock:
            if self._source is None and not self._root.exists():
                raise NotFound(f"{self.location}: does not exist; give the address of a store")
            source = self._source = self._source or DirectorySource(self.location)
        return source.fetch(name, offset, size, arrived)

    def has(self, name: str) -> bool:
        """Whether the object exists."""
        return (self._root / name).is_file()

    def size(self, name: str) -> int:
        """Return the object's size; see `Backend`."""
        try:
            return (self._root / name).stat().st_size
        except OSError as error:
            raise _translated(error, f"{self.location}/{name}") from None

    def iter_names(self, prefix: str) -> Iterator[str]:
        """Yield names below ``prefix``; a file still being written has none."""
        base = self._root / prefix
        found = (path for path in base.rglob("*") if path.is_file() and path.suffix != PART)
        yield from sorted(str(path.relative_to(self._root)) for path in found)

    def iter_unfinished(self) -> Iterator[str]:
        """Yield names of what is still being written; see `Backend`."""
        found = (path for path in self._root.rglob(f"*{PART}") if path.is_file())
        yield from sorted(str(path.relative_to(self._root)) for path in found)

    def age_s(self, name: str, now_s: float) -> float:
        """Return how long ago an object was written; see `Backend`."""
        try:
            return now_s - (self._root / name).stat().st_mtime
        except OSError as error:
            raise _translated(error, f"{self.location}/{name}") from None

    def refresh(self, name: str) -> bool:
        """Make an object young again; see `Backend`."""
        path = self._root / name
        try:
            # Not between a collection's look at its age and its end.
            with self.hold(alone=False):
                os.utime(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            # Another user's, in a store that several write.  It is not made young then,
            # and if it is collected before the commit, the commit says so.
            if (isinstance(error, PermissionError) or error.errno == EROFS) and path.is_file():
                return True
            raise _translated(error, str(path)) from None
        return True

    def write(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object; see `Backend`."""
        if not self.refresh(name):
            self.replace(name, pieces)

    def replace(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object over a damaged one; see `Backend`."""
        path = self._root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write_file(path, pieces)
        except FileNotFoundError:
            raise PackNotFound(
                f"{path}: removed while it was written; collect with a longer --grace, "
                "and convert again"
            ) from None
        except OSError as error:
            raise _translated(error, str(path)) from None

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; see `Backend`."""
        changed = set()
        for name in names:
            path = self._root / name
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise _translated(error, str(path)) from None
            changed.add(path.parent)
        # Directories stay, also empty ones: somebody may be about to write into them.
        for directory in changed:
            # Of a kind that the store has nothing of there may be none.
            if directory.is_dir():
                _sync_directory(directory)

    @contextmanager
    def hold(self, *, alone: bool) -> Iterator[None]:
        """Hold the store by a lock on its mark, which ends with the process; see `Backend`."""
        mark = self._root / STORE_MARK
        try:
            # Over NFS an exclusive lock takes a file that is open for writing.
            fd = os.open(mark, (os.O_RDWR if alone else os.O_RDONLY) | os.O_CLOEXEC)
        except OSError as error:
            raise _translated(error, str(mark)) from None
        try:
            _lock(fd, mark, alone=alone)
            yield
        finally:
            os.close(fd)

    def _write_file(self, path: Path, pieces: Iterator[bytes]) -> None:
        fd, part = tempfile.mkstemp(dir=path.parent, suffix=PART)
        try:
            with os.fdopen(fd, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
                # mkstemp gives 0600; a web server runs as somebody else.
                os.fchmod(file.fileno(), 0o644)
            os.rename(part, path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        # The names too must outlive a power cut, or a manifest could be there and its
        # packs not.
        for directory in {path.parent, path.parent.parent, self._root}:
            _sync_directory(directory)


def _lock(fd: int, mark: Path, *, alone: bool) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _translated(error, str(mark)) from None
        # Nobody can collect here either.
        if alone:
            raise UsageError(
                f"{mark}: {error.strerror}; nothing can be removed safely from a file system "
                "without locks: use the machine that has the disk"
            ) from None


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _translated(error: OSError, where: str) -> BootfsError:
    if isinstance(error, FileNotFoundError):
        return PackNotFound(f"{where}: does not exist")
    if isinstance(error, NotADirectoryError | FileExistsError):
        return UsageError(f"{where}: not a directory; use another path for the store")
    if error.errno in (ENOSPC, EDQUOT, EFBIG):
        return StorageFull(
            f"{where}: {error.strerror}; the store holds what it held before, "
            "make room and convert again"
        )
    if isinstance(error, PermissionError) or error.errno == EROFS:
        return AccessDenied(f"{where}: {error.strerror}; the store must be writable")
    return BootfsError(f"{where}: {error.strerror or error}; see `dmesg` for what the disk says")
