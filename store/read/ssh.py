"""A store below a directory of a server that speaks SFTP, read over one connection.

Imported only when a store's URL says ssh:// or sftp://.  Why OpenSSH's own program, and
what it costs: docs/decisions/0018-ssh.md.
"""

from __future__ import annotations

from time import monotonic

from store.errors import BootfsError, NotFound, PackNotFound, SizeMismatch
from store.format.sftp import STAT, encode_path_request
from store.format.sftpanswer import parse_attributes
from store.format.sshurl import parse_ssh_url
from store.read.retry import until_done
from store.read.sftp import STALL_LIMIT_S
from store.read.sftprange import read_range
from store.read.sshprogram import SshProgram, find_program
from store.read.sshsession import LOGIN_LIMIT_S, Handle, Session, SshSessions

KEPT_HANDLES = 64
"""Files that stay open at the server, each asked for without opening it again."""

STREAM_PIECE = 2 << 20
"""What is asked for at once of an object that is used while it comes, by many small reads."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from store.read.sftp import SftpConnection

    T = TypeVar("T")

    from store.read.retry import Outage


class SshSource:
    """Objects as files below a directory of an SFTP server; see `Mirror`."""

    read_ahead = 128 << 10
    """100 Mbit/s for 10 ms, or 1 Gbit/s for 1 ms."""

    def __init__(
        self,
        url: str,
        read_limit_s: float,
        auth: str = "",
        program: SshProgram | None = None,
        kept_handles: int = KEPT_HANDLES,
        outage: Outage | None = None,
    ) -> None:
        """Connect to nothing yet; ``program`` is what to start in place of this machine's ssh.

        With ``kept_handles`` 0 each fetch opens what is there then, also where somebody has
        replaced an object; it takes one more answer of the server.  ``outage`` is told of
        failures that are tried again.

        Raises:
            UsageError: the URL is none, or there is no ssh.

        """
        self.location = url
        self.place = parse_ssh_url(url)
        self.outage = outage
        self._limit_s = read_limit_s
        self._kept_handles = kept_handles
        self._sessions = SshSessions(self.place, program or find_program(auth), auth)

    def dial(self) -> None:
        """Log in now, so that the first fetch finds a connection; failure shows there."""
        try:
            self.session(monotonic() + LOGIN_LIMIT_S)
        except BootfsError:
            return

    def close(self) -> None:
        """Log out; no fetch may be under way."""
        self._sessions.close()

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        """Return exactly ``size`` bytes of object ``name``; see `Source`."""
        return until_done(
            lambda left_s: self.fetch_once(name, offset, size, arrived, left_s, left_s),
            self._limit_s,
            f"{self.location}/{name}",
            self.outage,
        )

    def fetch_once(
        self,
        name: str,
        offset: int,
        size: int,
        arrived: Callable[[memoryview], None] | None,
        limit_s: float,
        patience_s: float,
    ) -> bytes:
        """Do the same by one try; see `Mirror`."""
        deadline = monotonic() + limit_s
        begins = monotonic() + min(limit_s, patience_s)
        stall_s = min(STALL_LIMIT_S, patience_s)
        path = self.path(name)

        def read(connection: SftpConnection, handle: bytes) -> bytes:
            return read_range(connection, handle, path, offset, size, arrived, deadline, stall_s)

        return self._use(name, begins, read)

    def stream(self, name: str, limit: int, arrived: Callable[[memoryview], None]) -> int:
        """Give ``arrived`` a whole object as it comes; see `Streaming`."""
        path = self.path(name)

        def read(connection: SftpConnection, handle: bytes) -> int:
            limit_s = self._limit_s
            answer = connection.call(
                lambda n: encode_path_request(STAT, n, path), monotonic() + limit_s
            )
            connection.check(answer, path)
            size = parse_attributes(answer).size
            if size > limit:
                raise SizeMismatch(f"{self.location}/{name}", limit, size)
            for at in range(0, size, STREAM_PIECE):
                body = read_range(
                    *(connection, handle, path, at, min(STREAM_PIECE, size - at), None),
                    *(monotonic() + limit_s, min(STALL_LIMIT_S, limit_s)),
                )
                arrived(memoryview(body))
            return size

        return self._use(name, monotonic() + self._limit_s, read)

    def _use(self, name: str, begins: float, read: Callable[[SftpConnection, bytes], T]) -> T:
        """Return what ``read`` makes of an object's open file, which is open by then.

        Raises:
            PackNotFound: there is none.

        """
        session = self.session(begins)
        try:
            file = self._open(session, name, begins)
        except NotFound as error:
            raise PackNotFound(f"{error}; is BLOB_STORE the right one?") from None
        is_good = False
        try:
            result = read(session.connection, file.handle)
            is_good = True
            return result
        finally:
            self._leave(session, name, file, is_good)

    def path(self, name: str) -> bytes:
        """Return an object's path at the server."""
        return self.place.path + b"/" + name.encode("ascii")

    def session(self, deadline: float) -> Session:
        """Return what there is to ask the server; see `SshSessions.take`."""
        return self._sessions.take(deadline)

    def _open(self, session: Session, name: str, deadline: float) -> Handle:
        """Return an open file for one more user; `_leave` ends the use."""
        with self._sessions.lock:
            file = session.handles.pop(name, None)
            if file is not None:
                session.handles[name] = file
                file.users += 1
                return file
        return Handle(session.connection.open(self.path(name), deadline))

    def _leave(self, session: Session, name: str, file: Handle, is_good: bool) -> None:
        """End the use of an open file, which is kept when it ``is_good``."""
        surplus: list[Handle] = []
        with self._sessions.lock:
            file.users -= 1
            kept = session.handles.get(name)
            if kept is None and is_good and self._kept_handles:
                session.handles[name] = file
            elif kept is file and not is_good:
                # It may be replaced: who asks again opens what is there then.
                del session.handles[name]
            if session.handles.get(name) is not file and not file.users:
                surplus.append(file)
            idle = [n for n, f in session.handles.items() if not f.users]
            for other in idle[: max(len(session.handles) - self._kept_handles, 0)]:
                surplus.append(session.handles.pop(other))
        for unused in surplus:
            session.connection.forget(unused.handle)
