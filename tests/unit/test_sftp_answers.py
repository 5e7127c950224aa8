"""The thread that takes the answers of an SFTP server: whatever ends it, nobody waits for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import Thread

import pytest

from store.errors import BootfsError, Unreachable
from store.read.sftp import SftpConnection
from tests.support.sftpwire import message, u32

VERSION = 2
STARTED = message(VERSION, 3)


class Child:
    """A child whose server is a pipe that the test writes into."""

    def __init__(self, end: Callable[[], str]) -> None:
        self.fd_out, self.server = os.pipe()
        self.requests, self.fd_in = os.pipe()
        self._end = end

    def signal(self, number: int) -> None:
        """Be gone: nothing comes any more."""
        del number
        if self.server >= 0:
            os.close(self.server)
            self.server = -1

    def end(self) -> str:
        self.signal(9)
        return self._end()

    def close(self) -> None:
        for fd in (self.fd_out, self.requests):
            os.close(fd)


def explode() -> str:
    raise MemoryError


@pytest.mark.parametrize("where", ["a read", "an allocation", "the end", "the reason"])
def test_an_exception_ends_the_connection_and_not_the_wait(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child(explode if where == "the end" else lambda: "said")

    def explain(said: str) -> BootfsError:
        if where == "the reason":
            raise ValueError(said)
        return Unreachable(said)

    connection = SftpConnection(child, "ssh://h", explain)  # type: ignore[arg-type]  # a stand-in
    os.write(child.server, STARTED)
    connection.begin(5)

    def fail(self: SftpConnection, size: int) -> memoryview:
        raise OSError(5, "broken") if where == "a read" else MemoryError

    if where in ("a read", "an allocation"):
        monkeypatch.setattr(SftpConnection, "_read", fail)
        # A length: what is read after it fails.
        os.write(child.server, u32(5))
    else:
        child.signal(9)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        connection.call(lambda n: b"asked", time.monotonic() + 30, 30)
    closing = Thread(target=connection.close, daemon=True)
    closing.start()
    closing.join(5)
    assert not closing.is_alive() and time.monotonic() - began < 10
    assert connection.is_broken
    child.close()
