"""Layers that are fetched when they are wanted, and read while they still arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Self

from converter.spool import FileBlob, GivenUp, Spool, SpoolFile
from store.errors import SizeMismatch

_AT_ONCE = 3
"""Layers fetched at once, as by docker."""


class _Arrival:
    """How far a file has come: one thread writes it, others wait."""

    def __init__(self, begin: Callable[[_Arrival], None]) -> None:
        """``begin`` starts the thread that writes; it is called once, when bytes are wanted."""
        self._changed = threading.Condition()
        self._begin = begin
        self._is_begun = False
        self._size = 0
        self._error: BaseException | None = None

    def want(self) -> None:
        """Have the file written, if it is not yet."""
        with self._changed:
            if self._is_begun or self._error is not None:
                return
            self._is_begun = True
        self._begin(self)

    def reach(self, size: int) -> None:
        """Let those read who wait for ``size`` bytes or fewer."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` where more is waited for than there is."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    @property
    def has_failed(self) -> bool:
        """Whether nobody waits any more."""
        return self._error is not None

    def wait_until(self, size: int) -> None:
        """Return when there are ``size`` bytes.

        Raises:
            BootfsError: they will not come, for the reason that was given.

        """
        self.want()
        with self._changed:
            while self._size < size:
                if self._error is not None:
                    raise self._error
                self._changed.wait()


class ArrivingBlob(FileBlob):
    """A run of bytes of a file that is being written: who reads waits until they are there."""

    __slots__ = ("_arrival",)

    def __init__(self, fd: int, name: str, offset: int, size: int, arrival: _Arrival) -> None:
        super().__init__(fd, name, offset, size)
        self._arrival = arrival

    def pread(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``, when they have come.

        Raises:
            SizeMismatch: the blob ends before that.
            BootfsError: they could not be fetched, or the disk cannot be read.

        """
        if 0 <= offset <= offset + size <= self.size:
            self._arrival.wait_until(self.offset + offset + size)
        return super().pread(offset, size)

    def part(self, name: str, offset: int, size: int) -> Self:
        """Return the blob of ``size`` bytes from ``offset`` within this one.

        Raises:
            SizeMismatch: this blob ends before that.

        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise SizeMismatch(name, size, max(0, self.size - offset))
        return type(self)(self._fd, name, self.offset + offset, size, self._arrival)

    def want(self) -> None:
        """Have the bytes fetched, if they are not yet."""
        self._arrival.want()

    def abandon(self) -> None:
        """Let nobody wait any more for bytes that have not come; they are not fetched either."""
        self._arrival.fail(GivenUp(f"{self.name}: given up; nobody wants it any more"))


class Arrivals:
    """Threads that write blobs into a spool, a few at once; to be closed before the spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._files = ExitStack()
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="arrival")

    def expect(self, name: str, size: int, fetch: Callable[[], Iterator[bytes]]) -> ArrivingBlob:
        """Return a blob of ``size`` bytes that ``fetch`` yields, in a thread, once it is wanted."""
        file = self._files.enter_context(self._spool.writing(name))

        def begin(arrival: _Arrival) -> None:
            if self._stopped.is_set():
                arrival.fail(GivenUp(f"{name}: given up; nobody wants it any more"))
                return
            self._pool.submit(self._write, file, size, fetch, arrival)

        arrival = _Arrival(begin)
        return ArrivingBlob(file.fileno(), name, 0, size, arrival)

    def pause(self, seconds: float) -> None:
        """Wait before trying again to fetch.

        Raises:
            GivenUp: the threads are to end.

        """
        if self._stopped.wait(seconds):
            raise GivenUp("given up; nobody wants it any more")

    def close(self) -> None:
        """End the threads; one that waits for the network ends with its next piece or try."""
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)
        self._files.close()

    def _write(
        self,
        file: SpoolFile,
        size: int,
        fetch: Callable[[], Iterator[bytes]],
        arrival: _Arrival,
    ) -> None:
        try:
            for piece in fetch():
                if self._stopped.is_set() or arrival.has_failed:
                    raise GivenUp(f"{file.name}: given up; nobody wants it any more")
                file.write(piece)
                arrival.reach(file.size)
            arrival.fail(SizeMismatch(file.name, size, file.size))
        except BaseException as error:  # whoever waits for the bytes raises it
            arrival.fail(error)
