"""Who holds a store in S3, which has no locks: by objects that say so.

Who wants the store writes an object of its own first, and then looks who else has one.
What S3 promises, that a listing has all that was written before, makes two who are in
each other's way see one another.  Such an object is renewed while it is needed; one that
is old is of somebody who was killed.  All ages are by the server's clock.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from time import CLOCK_BOOTTIME, clock_gettime, sleep

from store.errors import BootfsError, PackNotFound, TimedOut
from store.read.retry import jittered
from store.write.backends.s3objects import S3Objects

LOCKS = "locks/"
RENEWED_S = 20.0
EXPIRED_S = 120.0
"""Of an object that was not renewed for so long, nobody is left."""
SURE_S = EXPIRED_S - 30.0
"""Who could not renew for so long begins nothing more; what is on its way has the rest."""
LONGEST_PAUSE_S = 1.0

_ALONE, _TOGETHER = f"{LOCKS}alone-", f"{LOCKS}with-"


class S3Locks:
    """Holds of one store by this process."""

    def __init__(self, objects: S3Objects) -> None:
        self._objects = objects
        self._lock = Lock()
        self._holds: list[_Hold] = []

    @contextmanager
    def hold(self, *, alone: bool) -> Iterator[None]:
        """Hold the store; see `Backend.hold`.

        Raises:
            AccessDenied: it may not be written.

        """
        hold = _Hold(self._objects, _ALONE if alone else _TOGETHER)
        try:
            hold.wait_until_granted()
            with self._lock:
                self._holds.append(hold)
            try:
                yield
            finally:
                with self._lock:
                    self._holds.remove(hold)
        finally:
            hold.end()

    def check(self) -> None:
        """Return when all that this process holds is still held.

        Raises:
            TimedOut: others may have taken it for dead by now.

        """
        with self._lock:
            holds = list(self._holds)
        for hold in holds:
            hold.check()


class _Hold:
    """An object that says who holds the store, and a thread that keeps it young."""

    def __init__(self, objects: S3Objects, kind: str) -> None:
        self.name = f"{kind}{secrets.token_hex(8)}"
        self._objects = objects
        self._text = f"{socket.gethostname()} {os.getpid()}\n".encode()
        self._ended = Event()
        self._thread: Thread | None = None
        self._renewed_s = 0.0
        """When the object was surely young, by a clock that goes on in a machine that sleeps."""
        self._problem = ""

    def wait_until_granted(self) -> None:
        """Write the object and wait until nobody is in the way.

        Who shares gives way to who wants to be alone, so that the latter comes to it; of
        two who want to be alone both do, for a while at random.

        Raises:
            AccessDenied, RemoteError: the store cannot be written.

        """
        self._write()
        while True:
            rivals, others = self._others()
            if rivals:
                self._objects.delete(self.name)
                while rivals:
                    _pause()
                    rivals, _ = self._others()
                self._write()
            elif others and self.name.startswith(_ALONE):
                _pause()
                if self._silent_s() > RENEWED_S:
                    self._write()
            else:
                break
        self._thread = Thread(target=self._renew, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Remove the object."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._objects.delete(self.name)

    def check(self) -> None:
        """Return when others still see the object as young.

        Raises:
            TimedOut: they may not.

        """
        silent_s = self._silent_s()
        if silent_s > SURE_S:
            raise TimedOut(
                f"{self._objects.where(self.name)}: not renewed for {silent_s:.0f} s, so others "
                f"may change the store by now; nothing more is done, do it again{self._problem}"
            )

    def _silent_s(self) -> float:
        return clock_gettime(CLOCK_BOOTTIME) - self._renewed_s

    def _others(self) -> tuple[list[str], list[str]]:
        """Return who else wants to be alone, and who shares; the old ones are removed."""
        found, now = self._objects.listed(LOCKS)
        young: list[str] = []
        for name, written in found:
            if name == self.name:
                continue
            if (now - written).total_seconds() > EXPIRED_S:
                self._objects.delete(name)
            else:
                young.append(name)
        rivals = [name for name in young if name.startswith(_ALONE)]
        return rivals, [name for name in young if name.startswith(_TOGETHER)]

    def _write(self) -> None:
        # Counted from before the request: it is answered for at some time after that.
        begun_s = clock_gettime(CLOCK_BOOTTIME)
        self._objects.put(self.name, self._text)
        self._renewed_s = begun_s

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED_S) and self._silent_s() < SURE_S:
            try:
                # One that others have removed must not come to life again: they go on.
                self._objects.written(self.name)
                self._write()
            except PackNotFound:
                self._renewed_s = -EXPIRED_S
                return
            except BootfsError as error:
                self._problem = f"; last: {error}"


def _pause() -> None:
    sleep(jittered(LONGEST_PAUSE_S))
