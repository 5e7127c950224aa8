"""The user's files with credentials: one directory, which is mounted into a container.

Nothing of their contents may get into a message: only paths and numbers of lines.
"""

from __future__ import annotations

import os

from store.errors import AccessDenied

SIZE_LIMIT = 256 << 10
"""Bytes; a bundle of authorities has some 200 KB, credentials a few lines."""


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Parsed = TypeVar("Parsed")


class AuthDirectory:
    """A directory of files with credentials, opened at once: a boot may lose the path."""

    def __init__(self, path: str) -> None:
        """Open it; an empty path is a directory without files.

        Raises:
            AccessDenied: it cannot be opened.

        """
        self.path = path
        self._fd = -1
        if not path:
            return
        try:
            self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise AccessDenied(
                f"{path}: {error.strerror}; it is to be a directory of files with credentials"
            ) from None

    def close(self) -> None:
        """Let it go; its files are not there any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def open_file(self, name: str) -> int:
        """Return a descriptor of the file; the caller closes it.

        Raises:
            OSError: as open(2).

        """
        if self._fd < 0:
            raise FileNotFoundError
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._fd)


class AuthFile:
    """One file of the directory, whether it is there or not."""

    def __init__(self, directory: AuthDirectory, name: str) -> None:
        self.path = f"{directory.path}/{name}" if directory.path else name
        self._directory = directory
        self._name = name
        self._stamp: tuple[int, ...] = ()

    def parsed(self, parse: Callable[[str, str], Parsed]) -> Parsed:
        """Return what ``parse`` makes of its text and its path; no file is an empty one.

        Raises:
            AccessDenied: it cannot be read, or is no text; also as ``parse`` does.  It
                counts as changed then.

        """
        stamp, text = self._read()
        value = parse(text, self.path)
        self._stamp = stamp
        return value

    def _read(self) -> tuple[tuple[int, ...], str]:
        try:
            fd = self._directory.open_file(self._name)
        except FileNotFoundError:
            return (), ""
        except OSError as error:
            raise AccessDenied(
                f"{self.path}: {error.strerror}; root must be able to read it"
            ) from None
        try:
            stamp = _stamp(fd)
            data = os.read(fd, SIZE_LIMIT + 1)
        except OSError as error:
            raise AccessDenied(f"{self.path}: {error.strerror}; it is to be a file") from None
        finally:
            os.close(fd)
        if len(data) > SIZE_LIMIT:
            raise AccessDenied(f"{self.path}: more than {SIZE_LIMIT} bytes; is it the right file?")
        try:
            return stamp, data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise AccessDenied(f"{self.path}: line {line}: not UTF-8") from None

    def has_changed(self) -> bool:
        """Whether another file is there than was read, or the same one was written since."""
        try:
            fd = self._directory.open_file(self._name)
        except OSError:
            # Gone, or one that the caller is to be told of when it reads.
            return self._stamp != ()
        try:
            return _stamp(fd) != self._stamp
        finally:
            os.close(fd)


def _stamp(fd: int) -> tuple[int, ...]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
