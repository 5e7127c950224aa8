"""Files at an SFTP server: looked at, written, renamed and removed."""

from __future__ import annotations

import secrets
from _queue import SimpleQueue
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import TypeVar

from store.errors import AccessDenied, NotFound, RemoteError, StorageFull
from store.format.sftp import (
    ANSWER_STATUS,
    CLOSE,
    EOF,
    FAILURE,
    FSYNC,
    NO_SUCH_FILE,
    OK,
    OPEN_CREATE,
    OPEN_WRITE,
    OPENDIR,
    PERMISSION_DENIED,
    POSIX_RENAME,
    READ_SIZE,
    READDIR,
    REMOVE,
    STAT,
    STATVFS,
    encode_extended,
    encode_mkdir,
    encode_open,
    encode_path_request,
    encode_rename,
    encode_set_mode,
    encode_set_times,
    encode_write,
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
UPLOAD_TRIES = 4
"""Connections that one object may take, each as long as it goes on."""
WINDOW = 32
"""Writes in flight: a megabyte."""
SYNC_LIMIT_S = 300.0
"""How long a disk may take to have an object safe."""
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

        return self._again(ask)

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

        return self._again(ask)

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
            self._check_change(
                connection, connection.call(lambda n: encode_mkdir(n, path, 0o755), deadline), path
            )

        try:
            self._again(ask)
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
            self._check_change(
                connection,
                connection.call(lambda n: encode_set_times(n, path, time_s), deadline),
                path,
            )

        self._again(ask)

    def remove(self, path: bytes) -> None:
        """Remove a file; none is none.

        Raises:
            AccessDenied, RemoteError: it cannot be removed.

        """

        def ask(connection: SftpConnection, deadline: float) -> None:
            answer = connection.call(lambda n: encode_path_request(REMOVE, n, path), deadline)
            if answer.kind != ANSWER_STATUS or parse_status(answer)[0] != NO_SUCH_FILE:
                self._check_change(connection, answer, path)

        self._again(ask)

    def write(self, path: bytes, part_suffix: str, pieces: Iterator[bytes]) -> None:
        """Write a file whole, under another name in the same directory until its bytes are safe.

        What ``pieces`` has given is kept until then: where a connection breaks, it is sent again.

        Raises:
            NotFound: it was removed while it was written.
            AccessDenied, StorageFull, RemoteError: it cannot be written; nothing of it remains.

        """
        sent: list[bytes] = []
        part = path.rpartition(b"/")[0] + f"/new-{secrets.token_hex(8)}{part_suffix}".encode()

        def all_pieces() -> Iterator[bytes]:
            yield from list(sent)
            for piece in pieces:
                sent.append(piece)
                yield piece

        try:
            for tries_left in reversed(range(UPLOAD_TRIES)):
                connection = self._again(lambda connection, _: connection)
                try:
                    self._upload(connection, part, all_pieces())
                    self._rename(connection, part, path)
                    return
                except RemoteError as error:
                    if not error.retryable or not tries_left:
                        raise
        except BaseException:
            self.remove(part)
            raise

    def _upload(self, connection: SftpConnection, part: bytes, pieces: Iterator[bytes]) -> None:
        # Not exclusively: it may be there from before a connection broke.
        flags = OPEN_WRITE | OPEN_CREATE
        soon = monotonic() + LIMIT_S
        answer = connection.call(lambda n: encode_open(n, part, flags, 0o644), soon)
        self._check_change(connection, answer, part)
        handle = parse_handle(answer)
        answers: SimpleQueue[Answer | None] = SimpleQueue()
        in_flight = offset = 0
        try:
            for piece in pieces:
                for at in range(0, len(piece), READ_SIZE):
                    data = piece[at : at + READ_SIZE]
                    if in_flight == WINDOW:
                        self._take_written(connection, answers, part)
                        in_flight -= 1
                    connection.ask(partial(_encode_write, handle, offset, data), answers, LIMIT_S)
                    in_flight += 1
                    offset += len(data)
            for _ in range(in_flight):
                self._take_written(connection, answers, part)
            if FSYNC in connection.extensions:
                answer = connection.call(
                    lambda n: encode_extended(n, FSYNC, handle),
                    monotonic() + SYNC_LIMIT_S,
                    SYNC_LIMIT_S,
                )
                self._check_change(connection, answer, part)
            # The server's umask may have taken away what a web server needs.
            answer = connection.call(
                lambda n: encode_set_mode(n, part, 0o644), monotonic() + LIMIT_S
            )
            self._check_change(connection, answer, part)
        except BaseException:
            connection.forget(handle)
            raise
        answer = connection.call(
            lambda n: encode_path_request(CLOSE, n, handle), monotonic() + LIMIT_S
        )
        self._check_change(connection, answer, part)

    def _take_written(
        self, connection: SftpConnection, answers: SimpleQueue[Answer | None], part: bytes
    ) -> None:
        answer = connection.wait(answers, monotonic() + LIMIT_S, LIMIT_S)
        self._check_change(connection, answer, part)

    def _rename(self, connection: SftpConnection, part: bytes, path: bytes) -> None:
        deadline = monotonic() + LIMIT_S
        if POSIX_RENAME in connection.extensions:
            answer = connection.call(
                lambda n: encode_extended(n, POSIX_RENAME, part, path), deadline
            )
            self._check_change(connection, answer, part)
            return
        # Version 3 itself replaces nothing.  For a moment there is no object of this name.
        answer = connection.call(lambda n: encode_path_request(REMOVE, n, path), deadline)
        if answer.kind != ANSWER_STATUS or parse_status(answer)[0] not in (OK, NO_SUCH_FILE):
            self._check_change(connection, answer, path)
        answer = connection.call(lambda n: encode_rename(n, part, path), deadline)
        self._check_change(connection, answer, part)

    def _check_change(self, connection: SftpConnection, answer: Answer, path: bytes) -> None:
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

    def _again(self, ask: Callable[[SftpConnection, float], _T]) -> _T:
        def attempt(left_s: float) -> _T:
            deadline = monotonic() + left_s
            return ask(self._source.session(deadline).connection, deadline)

        return until_done(attempt, LIMIT_S, self._source.location)


def _encode_write(handle: bytes, offset: int, data: bytes, number: int) -> bytes:
    return encode_write(number, handle, offset, data)
