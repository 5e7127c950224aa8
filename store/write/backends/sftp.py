"""A store below a directory of a server that speaks SFTP, laid out as in a directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import time

from store.errors import AccessDenied, NotFound, PackNotFound, RemoteError, UsageError
from store.format.names import STORE_MARK, STORE_MARK_TEXT
from store.format.sftpanswer import Attributes
from store.read.ssh import SshSource
from store.write.backends.directory import PART
from store.write.backends.sftpfiles import LIMIT_S, SftpFiles
from store.write.backends.sftpupload import SftpUpload
from store.write.contact import Contact


class SftpBackend:
    """Objects as files below a directory, with the user's own keys and ssh configuration.

    The protocol knows no locks: `hold` says what follows.
    """

    def __init__(self, url: str, log: Callable[[str], None] = lambda _: None) -> None:
        """Connect to nothing yet.

        Raises:
            UsageError: the URL is none, or there is no ssh.

        """
        self._source = SshSource(url, LIMIT_S, kept_handles=0, outage=Contact(log))
        self.location = url
        self.read_ahead = self._source.read_ahead
        self._root = self._source.place.path
        self._files = SftpFiles(self._source)
        self._made: set[bytes] = set()
        """Directories that are known to be there."""

    def check(self) -> None:
        """Return when a store is there or can be made; see `Backend`."""
        root = self._files.stat(self._root or b"/")
        if root is not None and not root.is_directory:
            raise self._not_a_directory()
        if root is not None:
            self._is_made()

    def create(self) -> None:
        """Make the store; see `Backend`."""
        try:
            self._files.make_directories(self._root)
        except NotADirectoryError:
            raise self._not_a_directory() from None
        if not self._is_made():
            SftpUpload(self._files, self._path(STORE_MARK), PART, iter((STORE_MARK_TEXT,))).run()

    def _is_made(self) -> bool:
        """Whether the directory is a store, and not just empty.

        Raises:
            UsageError: it is something else.

        """
        mark = self._files.stat(self._path(STORE_MARK))
        if mark is not None:
            size = min(mark.size, 40)
            found = self._source.fetch(STORE_MARK, 0, size) if size > 0 else b""
            if found != STORE_MARK_TEXT or mark.size != len(found):
                raise UsageError(
                    f"{self.location}: a store of another version ({found!r}); "
                    "use another directory"
                )
            return True
        # A .part is the mark that a creation before was killed at.
        if any(not n.endswith(PART.encode()) for n, _ in self._files.list(self._root or b"/")):
            raise UsageError(
                f"{self.location}: not empty and not a bootfs store; use another directory"
            )
        return False

    def dial(self) -> None:
        """Log in."""
        self._source.dial()

    def close(self) -> None:
        """Log out."""
        self._source.close()

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        """Return bytes of an object; see `Source`."""
        return self._source.fetch(name, offset, size, arrived)

    def has(self, name: str) -> bool:
        """Whether the object exists."""
        found = self._files.stat(self._path(name))
        return found is not None and found.is_regular

    def size(self, name: str) -> int:
        """Return the object's size; see `Backend`."""
        return self._known(name, self._files.stat(self._path(name))).size

    def iter_names(self, prefix: str) -> Iterator[str]:
        """Yield names below ``prefix``; a file still being written has none."""
        yield from sorted(n for n in self._iter_files(prefix.rstrip("/")) if not n.endswith(PART))

    def iter_unfinished(self) -> Iterator[str]:
        """Yield names of what is still being written; see `Backend`."""
        yield from sorted(name for name in self._iter_files("") if name.endswith(PART))

    def age_s(self, name: str, now_s: float) -> float:
        """Return how long ago an object was written; see `Backend`."""
        found = self._known(name, self._files.stat(self._path(name)))
        if found.mtime_s < 0:
            raise RemoteError(
                f"{self.location}/{name}: the server does not say when it was written"
            )
        return now_s - found.mtime_s

    def refresh(self, name: str) -> bool:
        """Make an object young again, by this machine's clock; see `Backend`."""
        path = self._path(name)
        try:
            self._files.set_times(path, int(time()))
        except NotFound:
            return False
        except AccessDenied:
            # Another user's, in a store that several write, as in a directory.
            if self.has(name):
                return True
            if self._files.stat(path) is None and self._is_made():
                return False
            raise
        return True

    def write(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object; see `Backend`."""
        if not self.refresh(name):
            self.replace(name, pieces)

    def replace(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object over a damaged one; see `Backend`."""
        path = self._path(name)
        directory = path.rpartition(b"/")[0]
        try:
            if directory not in self._made:
                self._files.make_directories(directory)
                self._made.add(directory)
            SftpUpload(self._files, path, PART, pieces).run()
        except NotADirectoryError:
            raise self._not_a_directory() from None
        except PackNotFound:
            raise PackNotFound(
                f"{self.location}/{name}: its file was removed while it was written: "
                "collect with a longer --grace, and convert again"
            ) from None

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; see `Backend`."""
        for name in names:
            self._files.remove(self._path(name))

    @contextmanager
    def hold(self, *, alone: bool) -> Iterator[None]:
        """Do nothing for who holds the store with others: no lock reaches over SFTP.

        So a collection that somebody runs at the server does not wait for a commit from
        here; see docs/stores/ssh.md.

        Raises:
            UsageError: to be ``alone``.
            PackNotFound: there is no store.

        """
        if alone:
            raise UsageError(
                f"{self.location}: nothing can be removed safely over SFTP, which has no locks: "
                "run this at the server, with the directory"
            )
        self._known(STORE_MARK, self._files.stat(self._path(STORE_MARK)))
        yield

    def _path(self, name: str) -> bytes:
        return self._source.path(name)

    def _known(self, name: str, found: Attributes | None) -> Attributes:
        if found is None:
            raise PackNotFound(f"{self.location}/{name}: does not exist")
        return found

    def _iter_files(self, below: str) -> Iterator[str]:
        for raw, attributes in self._files.list(self._path(below).rstrip(b"/") or b"/"):
            name = raw.decode("utf-8", "surrogateescape")
            name = f"{below}/{name}" if below else name
            if attributes.is_directory:
                yield from self._iter_files(name)
            elif attributes.is_regular:
                yield name

    def _not_a_directory(self) -> UsageError:
        return UsageError(f"{self.location}: not a directory; use another path for the store")
