"""A file written whole at an SFTP server, over more than one connection where one breaks."""

from __future__ import annotations

import secrets
from _queue import SimpleQueue
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from time import monotonic

from store.errors import RemoteError
from store.format.sftp import (
    ANSWER_STATUS,
    CLOSE,
    FSYNC,
    NO_SUCH_FILE,
    OK,
    OPEN_CREATE,
    OPEN_WRITE,
    POSIX_RENAME,
    READ_SIZE,
    REMOVE,
    encode_extended,
    encode_open,
    encode_path_request,
    encode_rename,
    encode_set_mode,
    encode_write,
)
from store.format.sftpanswer import Answer, parse_handle, parse_status
from store.read.sftp import SftpConnection
from store.write.backends.sftpfiles import LIMIT_S, SftpFiles

TRIES = 4
"""Connections that one object may take, each as long as it goes on."""
WINDOW = 32
"""Writes in flight: a megabyte."""
SYNC_LIMIT_S = 300.0
"""How long a disk may take to have an object safe."""
MODE = 0o644
"""A web server that runs as somebody else may read it."""


class SftpUpload:
    """One file on its way, under another name in its directory until its bytes are safe.

    What ``pieces`` gives is kept until then: where a connection breaks, it is sent again.
    """

    def __init__(
        self, files: SftpFiles, path: bytes, part_suffix: str, pieces: Iterator[bytes]
    ) -> None:
        self._files = files
        self._path = path
        self._pieces = pieces
        self._sent: list[bytes] = []
        name = f"new-{secrets.token_hex(8)}{part_suffix}"
        self._part = path.rpartition(b"/")[0] + b"/" + name.encode()

    def run(self) -> None:
        """Write it.

        Raises:
            NotFound: it was removed while it was written.
            AccessDenied, StorageFull, RemoteError: it cannot be written; nothing of it
                remains, unless the server cannot be reached any more.

        """
        try:
            for tries_left in reversed(range(TRIES)):
                connection = self._files.again(lambda connection, _: connection)
                try:
                    self._send(connection)
                    self._rename(connection)
                    return
                except RemoteError as error:
                    if not error.retryable or not tries_left:
                        raise
        except BaseException:
            # Why it failed is what is to be known; a collection takes what stays.
            with suppress(RemoteError):
                self._files.remove(self._part, tries_again=False)
            raise

    def _all_pieces(self) -> Iterator[bytes]:
        yield from list(self._sent)
        for piece in self._pieces:
            self._sent.append(piece)
            yield piece

    def _send(self, connection: SftpConnection) -> None:
        # Not exclusively: it may be there from before a connection broke.
        flags = OPEN_WRITE | OPEN_CREATE
        part = self._part
        answer = connection.call(lambda n: encode_open(n, part, flags, MODE), _soon())
        self._check(connection, answer)
        handle = parse_handle(answer)
        try:
            self._send_pieces(connection, handle)
            if FSYNC in connection.extensions:
                answer = connection.call(
                    lambda n: encode_extended(n, FSYNC, handle),
                    monotonic() + SYNC_LIMIT_S,
                    SYNC_LIMIT_S,
                )
                self._check(connection, answer)
            # The server's umask may have taken some of it away.
            answer = connection.call(lambda n: encode_set_mode(n, part, MODE), _soon())
            self._check(connection, answer)
        except BaseException:
            connection.forget(handle)
            raise
        answer = connection.call(lambda n: encode_path_request(CLOSE, n, handle), _soon())
        self._check(connection, answer)

    def _send_pieces(self, connection: SftpConnection, handle: bytes) -> None:
        answers: SimpleQueue[Answer | None] = SimpleQueue()
        in_flight = offset = 0

        def take_one() -> None:
            self._check(connection, connection.wait(answers, _soon(), LIMIT_S))

        for piece in self._all_pieces():
            for at in range(0, len(piece), READ_SIZE):
                data = piece[at : at + READ_SIZE]
                if in_flight == WINDOW:
                    take_one()
                    in_flight -= 1
                connection.ask(partial(_encode_write, handle, offset, data), answers, LIMIT_S)
                in_flight += 1
                offset += len(data)
        for _ in range(in_flight):
            take_one()

    def _rename(self, connection: SftpConnection) -> None:
        part, path = self._part, self._path
        if POSIX_RENAME in connection.extensions:
            answer = connection.call(
                lambda n: encode_extended(n, POSIX_RENAME, part, path), _soon()
            )
            self._check(connection, answer)
            return
        # Version 3 itself replaces nothing.  For a moment there is no object of this name.
        answer = connection.call(lambda n: encode_path_request(REMOVE, n, path), _soon())
        if answer.kind != ANSWER_STATUS or parse_status(answer)[0] not in (OK, NO_SUCH_FILE):
            self._check(connection, answer)
        answer = connection.call(lambda n: encode_rename(n, part, path), _soon())
        self._check(connection, answer)

    def _check(self, connection: SftpConnection, answer: Answer) -> None:
        self._files.check_change(connection, answer, self._part)


def _soon() -> float:
    return monotonic() + LIMIT_S


def _encode_write(handle: bytes, offset: int, data: bytes, number: int) -> bytes:
    return encode_write(number, handle, offset, data)
