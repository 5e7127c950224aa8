"""Files at an SFTP server: looked at, listed and changed; sftpupload.py writes them."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from store.errors import AccessDenied, NotFound, RemoteError, StorageFull
from store.format.sftp import (
    ANSWER_STATUS,
    EOF,
    FAILURE,
    NO_SUCH_FILE,
    OPENDIR,
    PERMISSION_DENIED,
    READ_SIZE,
    READDIR,
    REMOVE,
    STAT,
    STATVFS,
    encode_extended,
    encode_mkdir,
    encode_path_request,
    encode_set_times,
)
from store.format.sftpanswer import (
    Answer,
    Attributes,
    parse_attributes,
    parse_handle,
    parse_names,
    parse_room,
    parse_status,
)
from store.read.retry import until_done
from store.read.sftp import SftpConnection
from store.read.ssh import SshSource

LIMIT_S = 60.0
"""What one look at the server or one change may take, logging in again included."""
ONCE_S = 2.0
"""The same for what is not worth waiting for."""
_T = TypeVar("_T")


class SftpFiles:
    """The files that ``source``'s server has; paths are bytes.

    What can be asked again is, over another connection, where one breaks.
    """

    def __init__(self, source: SshSource) -> None:
        self._source = source
        self._where = source.location.partition("://")[0] + "://" + source.place.authority

    def stat(self, path: bytes) -> Attributes | None:
        """Return what a path leads to; None where that is nothing.

        Raises:
            AccessDenied, RemoteError: the server does not say.

        """

        def ask(connection: SftpConnection, deadline: float) -> Attributes | None:
            answer = connection.call(lambda n: encode_path_request(STAT, n, path), deadline)
            try:
                connection.check(answer, path)
            except NotFound:
                return None
            return parse_attributes(answer)

        return self.again(ask)

    def list(self, path: bytes) -> list[tuple[bytes, Attributes]]:
        """Return the entries of a directory; none where there is no such directory.

        Raises:
            AccessDenied, RemoteError: it cannot be listed.

        """

        def ask(connection: SftpConnection, deadline: float) -> list[tuple[bytes, Attributes]]:
            answer = connection.call(lambda n: encode_path_request(OPENDIR, n, path), deadline)
            try:
                connection.check(answer, path)
            except NotFound:
                return []
            handle = parse_handle(answer)
            found: list[tuple[bytes, Attributes]] = []
            try:
                while True:
                    answer = connection.call(
                        lambda n: encode_path_request(READDIR, n, handle), deadline
                    )
                    if answer.kind == ANSWER_STATUS and parse_status(answer)[0] == EOF:
                        return [(n, a) for n, a in found if n not in (b".", b"..")]
                    connection.check(answer, path)
                    found += parse_names(answer)
            finally:
                connection.forget(handle)

        return self.again(ask)

    def make_directories(self, path: bytes) -> None:
        """Make a directory and those above it that are missing.

        Raises:
            NotADirectoryError: something else is in its way.
            AccessDenied, StorageFull, RemoteError: it cannot be made.

        """
        found = self.stat(path or b"/")
        if found is not None:
            if not found.is_directory:
                raise NotADirectoryError(path)
            return
        self.make_directories(path.rpartition(b"/")[0])

        def ask(connection: SftpConnection, deadline: float) -> None:
            self.check_change(
                connection, connection.call(lambda n: encode_mkdir(n, path, 0o755), deadline), path
            )

        try:
            self.again(ask)
        except RemoteError:
            # Somebody else may have made it meanwhile, or this did before a connection broke.
            found = self.stat(path)
            if found is None or not found.is_directory:
                raise

    def set_times(self, path: bytes, time_s: int) -> None:
        """Give a file this time of change.

        Raises:
            NotFound, AccessDenied, RemoteError: it cannot be given.

        """

        def ask(connection: SftpConnection, deadline: float) -> None:
            self.check_change(
                connection,
                connection.call(lambda n: encode_set_times(n, path, time_s), deadline),
                path,
            )

        self.again(ask)

    def remove(self, path: bytes, *, tries_again: bool = True) -> None:
        """Remove a file; none is none.

        Raises:
            AccessDenied, RemoteError: it cannot be removed.

        """

        def ask(connection: SftpConnection, deadline: float) -> None:
            answer = connection.call(lambda n: encode_path_request(REMOVE, n, path), deadline)
            if answer.kind != ANSWER_STATUS or parse_status(answer)[0] != NO_SUCH_FILE:
                self.check_change(connection, answer, path)

        self.again(ask, LIMIT_S if tries_again else ONCE_S)

    def check_change(self, connection: SftpConnection, answer: Answer, path: bytes) -> None:
        """Return when a change was made.

        The protocol has one code for a full disk, a read-only one and others: what is free is
        asked for.

        Raises:
            NotFound, AccessDenied, StorageFull, RemoteError: it was not.

        """
        if answer.kind != ANSWER_STATUS:
            return
        code, _ = parse_status(answer)
        where = f"{self._where}{path.decode('utf-8', 'replace')}"
        if code == PERMISSION_DENIED:
            raise AccessDenied(f"{where}: permission denied; the store must be writable")
        if code == FAILURE and STATVFS in connection.extensions:
            directory = path.rpartition(b"/")[0] or b"/"
            told = connection.call(
                lambda n: encode_extended(n, STATVFS, directory), monotonic() + LIMIT_S
            )
            if told.kind != ANSWER_STATUS:
                room = parse_room(told)
                if room.is_read_only:
                    raise AccessDenied(
                        f"{where}: read-only file system; the store must be writable"
                    )
                if room.size < READ_SIZE:
                    raise StorageFull(
                        f"{where}: no space left at the server; the store holds what it held "
                        "before, make room and convert again"
                    )
        connection.check(answer, path)

    def again(self, ask: Callable[[SftpConnection, float], _T], limit_s: float | None = None) -> _T:
        """Return what ``ask`` gets of a connection by a time, asked again where one breaks.

        All of it may take ``limit_s``, by default `LIMIT_S`.

        Raises:
            TimedOut: it took longer.
            BootfsError: as ``ask``, or there is no logging in.

        """

        def attempt(left_s: float) -> _T:
            deadline = monotonic() + left_s
            return ask(self._source.session(deadline).connection, deadline)

        return until_done(attempt, limit_s or LIMIT_S, self._source.location, self._source.outage)
