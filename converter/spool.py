"""Disk space for plain layers: made on demand, never filled up, gone at the end."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from store.errors import (
    AccessDenied,
    BootfsError,
    NotFound,
    SizeMismatch,
    StorageFull,
    UsageError,
)

_MIB = 1 << 20

_LARGER = "free some space, or set TMPDIR to a larger disk"

# How much is written between two looks at the free space.
_CHECK_EVERY = 16 * _MIB

# What a spool leaves free: a layer that unpacks to more than the disk holds (by
# accident or as a "bomb") must not starve everything else on the machine.
_RESERVE_LIMIT = 1024 * _MIB
_RESERVE_SHARE = 20


class GivenUp(BootfsError):
    """Bytes will not come because something else went wrong, which is what the user is told."""


class FileBlob:
    """A run of bytes of an open file.  The descriptor belongs to whoever opened it."""

    __slots__ = ("_fd", "name", "offset", "size")

    def __init__(self, fd: int, name: str, offset: int, size: int) -> None:
        self._fd = fd
        self.name = name
        """How messages call the blob."""
        self.offset = offset
        self.size = size

    @property
    def path(self) -> Path:
        """What opens the whole file under the blob in this process, also one without a name."""
        return Path(f"/proc/self/fd/{self._fd}")

    def pread(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``.  May be called from any thread.

        Raises:
            SizeMismatch: the blob, or the file under it, ends before that.
            BootfsError: the disk cannot be read.

        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise SizeMismatch(self.name, offset + size, self.size)
        try:
            return self._pread(offset, size)
        except OSError as error:
            raise translate_os_error(error, Path(self.name), "cannot be read") from error

    def _pread(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, self.offset + offset)
        if len(data) == size:
            return data
        # Linux reads at most 2 GiB at once.
        parts = [data]
        got = len(data)
        while got < size:
            data = os.pread(self._fd, size - got, self.offset + offset + got)
            if not data:
                raise SizeMismatch(self.name, self.size, offset + got)
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def part(self, name: str, offset: int, size: int) -> FileBlob:
        """Return the blob of ``size`` bytes from ``offset`` within this one.

        Raises:
            SizeMismatch: this blob ends before that.

        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise SizeMismatch(name, size, max(0, self.size - offset))
        return FileBlob(self._fd, name, self.offset + offset, size)

    def want(self) -> None:
        """Have bytes come that come only when they are wanted; here all have."""

    def abandon(self) -> None:
        """Let nobody wait any more for bytes that have not come; here all have."""

    def iter_pieces(self, piece: int = _MIB) -> Iterator[bytes]:
        """Yield the whole blob in order, at most ``piece`` bytes at a time."""
        for at in range(0, self.size, piece):
            yield self.pread(at, min(piece, self.size - at))


class Spool:
    """A temporary directory with files that vanish when it is closed.

    The files have no names (``O_TMPFILE``), so not even a killed process leaves
    bytes behind.  At least ``reserve`` bytes of the file system stay free; by
    default the smaller of 1 GiB and a twentieth of the file system.
    """

    def __init__(
        self,
        parent: Path | None = None,
        reserve: int | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        base = parent if parent is not None else Path(tempfile.gettempdir())
        with os_errors_at(base, "cannot make a temporary directory", _LARGER):
            self.path = Path(tempfile.mkdtemp(prefix="bootfs-", dir=base))
        if reserve is None:
            space = os.statvfs(self.path)
            reserve = min(_RESERVE_LIMIT, space.f_blocks * space.f_frsize // _RESERVE_SHARE)
        self.reserve = reserve
        self.advance = advance
        """Told how many bytes of a whole image were copied, as they are."""
        self._files: list[BinaryIO] = []
        self._users: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every file and remove the directory.  Closing twice is harmless."""
        while self._users:
            self._users.pop()()
        while self._files:
            self._files.pop().close()
        shutil.rmtree(self.path, ignore_errors=True)

    def end_first(self, end: Callable[[], None]) -> None:
        """Call ``end`` before the files are closed: for who writes some of them in a thread."""
        self._users.append(end)

    def store(self, name: str, data: bytes) -> FileBlob:
        """Return ``data`` as a blob.

        Raises:
            StorageFull: the disk is full.

        """
        with self.writing(name) as file:
            file.write(data)
        return file.blob

    def open_file(self, path: Path) -> FileBlob:
        """Open a file that already lies on disk, to be read in place until the spool is closed.

        Raises:
            NotFound: there is no such file, or it is something else.
            AccessDenied: it may not be read.
            UsageError: no file can have such a path.

        """
        with os_errors_at(path, "cannot be opened"):
            if path.exists() and not path.is_file():
                raise NotFound(f"{path}: not a file; check the path")
            file = path.open("rb")
            self._files.append(file)
            return FileBlob(file.fileno(), str(path), 0, os.fstat(file.fileno()).st_size)

    @contextmanager
    def writing(self, name: str) -> Iterator[SpoolFile]:
        """Give a new file to write; it is dropped if the block raises.

        After the block, `SpoolFile.blob` holds what was written until the spool is closed.
        """
        with os_errors_at(self.path, "cannot make a file", _LARGER):
            raw = tempfile.TemporaryFile(dir=self.path, buffering=0)  # noqa: SIM115
        file = cast("BinaryIO", raw)
        try:
            yield SpoolFile(self, file.fileno(), name)
        except BaseException:
            file.close()
            raise
        self._files.append(file)


class SpoolFile:
    """A file of a spool, written from front to back."""

    __slots__ = ("_checked", "_fd", "_spool", "name", "size")

    def __init__(self, spool: Spool, fd: int, name: str) -> None:
        self._spool = spool
        self._fd = fd
        self._checked = -_CHECK_EVERY
        self.name = name
        self.size = 0

    def fileno(self) -> int:
        """Return the descriptor, which is the spool's."""
        return self._fd

    @property
    def blob(self) -> FileBlob:
        """What was written so far."""
        return FileBlob(self._fd, self.name, 0, self.size)

    def write(self, data: bytes) -> None:
        """Append ``data``.

        Raises:
            StorageFull: the disk is full, or would have less free than the reserve.

        """
        if self.size + len(data) - self._checked > _CHECK_EVERY:
            self._check_space(len(data))
            self._checked = self.size
        rest = memoryview(data)
        while rest:
            try:
                written = os.write(self._fd, rest)
            except OSError as error:
                raise translate_os_error(
                    error, self._spool.path, f"after {self.size:,} bytes of {self.name}", _LARGER
                ) from error
            rest = rest[written:]
            self.size += written

    def _check_space(self, wanted: int) -> None:
        space = os.fstatvfs(self._fd)
        free = space.f_bavail * space.f_frsize
        if free - wanted < self._spool.reserve:
            raise StorageFull(
                f"{self._spool.path}: {free:,} bytes are free and {self._spool.reserve:,} are kept "
                f"in reserve, after {self.size:,} bytes of {self.name}; " + _LARGER
            )


def translate_os_error(
    error: OSError, path: Path, doing: str, advice: str = "free some space"
) -> BootfsError:
    """Return the project's error for what the system refused at ``path``.

    ``advice`` is for a disk that is full.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{path}: {doing}: the disk is full; {advice}")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"{path}: {doing}: it does not exist; check the path")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDenied(f"{path}: {doing}: {error.strerror}; check the owner and mode")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EISDIR):
        return UsageError(f"{path}: {doing}: {error.strerror}; use another path")
    return BootfsError(
        f"{path}: {doing}: {error.strerror or error}; see `dmesg` for what the disk says"
    )


@contextmanager
def os_errors_at(path: Path, doing: str, advice: str = "free some space") -> Iterator[None]:
    """Translate what the system refuses in the block, all of it at ``path``.

    ``advice`` is for a disk that is full.

    Raises:
        BootfsError: as `translate_os_error` chooses.

    """
    try:
        yield
    except OSError as error:
        raise translate_os_error(error, path, doing, advice) from error
