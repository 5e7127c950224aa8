"""A range of a file at an SFTP server: many small reads in flight, put together."""

from __future__ import annotations

from _queue import SimpleQueue
from time import monotonic

from store.errors import SizeMismatch
from store.format.sftp import ANSWER_STATUS, EOF, READ_SIZE, encode_read
from store.format.sftpanswer import parse_data, parse_status

WINDOW = 16
"""Reads in flight for one range: half a megabyte, what is on its way at 50 MB/s in 10 ms."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.read.sftp import Answers, SftpConnection


def read_range(
    connection: SftpConnection,
    handle: bytes,
    path: bytes,
    offset: int,
    size: int,
    arrived: Callable[[memoryview], None] | None,
    deadline: float,
    stall_s: float,
) -> bytes:
    """Return ``size`` bytes from ``offset`` of an open file; see `Source.fetch`.

    Raises:
        SizeMismatch: the file ends before that.
        AccessDenied, RemoteError: as of the connection's `check`, `ask` and `wait`.

    """
    body = bytearray(size)
    view = memoryview(body)
    answers: Answers = SimpleQueue()
    asked: dict[int, tuple[int, int]] = {}
    """Begin and size of what was asked for, by number."""
    ends: dict[int, int] = {}
    """Where what came out of order ends, by where it begins."""
    filled = begun = 0

    def ask(at: int, count: int) -> None:
        number = connection.ask(
            lambda n: encode_read(n, handle, offset + at, count),
            answers,
            deadline - monotonic(),
        )
        asked[number] = (at, count)

    while filled < size:
        while begun < size and len(asked) < WINDOW:
            count = min(READ_SIZE, size - begun)
            ask(begun, count)
            begun += count
        answer = connection.wait(answers, deadline, stall_s)
        at, count = asked.pop(answer.number)
        if answer.kind == ANSWER_STATUS:
            if parse_status(answer)[0] == EOF:
                where = f"{connection.where}{path.decode('utf-8', 'replace')} from {offset}"
                raise SizeMismatch(where, size, filled)
            connection.check(answer, path)
        data = parse_data(answer, count)
        view[at : at + len(data)] = data
        ends[at] = at + len(data)
        if len(data) < count:
            ask(at + len(data), count - len(data))
        before = filled
        while filled in ends:
            filled = ends.pop(filled)
        if arrived is not None and before < filled < size:
            arrived(view[:filled])
    if arrived is not None:
        arrived(view)
    return bytes(body)
