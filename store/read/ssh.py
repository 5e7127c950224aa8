"""A store below a directory of a server that speaks SFTP, read over one connection.

Imported only when a store's URL says ssh:// or sftp://.  Why OpenSSH's own program, and
what it costs: docs/decisions/0018-ssh.md.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from time import monotonic

from store.errors import AccessDenied, BootfsError, NotFound, PackNotFound, TimedOut, Unreachable
from store.format.sshurl import parse_ssh_url
from store.read.retry import until_done
from store.read.sftp import STALL_LIMIT_S, SftpConnection
from store.read.sshchild import SshChild
from store.read.sshlogin import Stamp, stamp_of
from store.read.sshprogram import CONNECT_LIMIT_S, SshProgram, find_program
from store.read.sshsaid import explain

LOGIN_LIMIT_S = 2.0 * CONNECT_LIMIT_S
"""What connecting and logging in may take together."""
KEPT_HANDLES = 64
"""Files that stay open at the server, each asked for without opening it again."""
REFUSED_S = 60.0
"""So long who was refused does not try again with the same credentials: servers lock such out."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Handle:
    """A file that is open at the server; ``users`` read it now."""

    __slots__ = ("handle", "is_stale", "users")

    def __init__(self, handle: bytes) -> None:
        self.handle = handle
        self.is_stale = False
        """There is another file in its place."""
        self.users = 1


class Session:
    """A connection and the files that are open on it."""

    __slots__ = ("connection", "handles")

    def __init__(self, connection: SftpConnection) -> None:
        self.connection = connection
        self.handles: dict[str, Handle] = {}
        """By object, those used longest ago first."""


class _Login:
    """A login under way, that others wait for."""

    __slots__ = ("done", "problem", "session")

    def __init__(self) -> None:
        self.session: Session | None = None
        self.problem: BootfsError | None = None
        self.done = allocate_lock()
        self.done.acquire()


class SshSource:
    """Objects as files below a directory of an SFTP server; see `Mirror`."""

    read_ahead = 128 << 10
    """100 Mbit/s for 10 ms, or 1 Gbit/s for 1 ms."""

    def __init__(
        self, url: str, read_limit_s: float, auth: str = "", program: SshProgram | None = None
    ) -> None:
        """Connect to nothing yet; ``program`` is what to start in place of this machine's ssh.

        Raises:
            UsageError: the URL is none, or there is no ssh.

        """
        self.location = url
        self.place = parse_ssh_url(url)
        self._limit_s = read_limit_s
        self._auth = auth
        self._program = program or find_program(auth)
        self._where = f"ssh://{self.place.authority}"
        self._lock = allocate_lock()
        self._session: Session | None = None
        self._login: _Login | None = None
        self._is_closed = False
        self._refused: tuple[AccessDenied, Stamp, float] | None = None
        """Why nobody is let in, with which credentials, and when that was."""

    def dial(self) -> None:
        """Log in now, so that the first fetch finds a connection; failure shows there."""
        try:
            self.session(monotonic() + LOGIN_LIMIT_S)
        except BootfsError:
            return

    def close(self) -> None:
        """Log out; no fetch may be under way."""
        with self._lock:
            self._is_closed = True
            login, session = self._login, self._session
            self._session = None
        if login is not None:
            with login.done:
                session = login.session or session
        if session is not None:
            session.connection.close()

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        """Return exactly ``size`` bytes of object ``name``; see `Source`."""
        return until_done(
            lambda left_s: self.fetch_once(name, offset, size, arrived, left_s, left_s),
            self._limit_s,
            f"{self.location}/{name}",
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
        session = self.session(begins)
        connection = session.connection
        path = self.path(name)
        try:
            file = self._open(session, name, begins)
        except NotFound as error:
            raise PackNotFound(f"{error}; is BLOB_STORE the right one?") from None
        is_good = False
        try:
            body = connection.read(file.handle, path, offset, size, arrived, deadline, stall_s)
            is_good = True
            return body
        finally:
            self._leave(session, name, file, is_good)

    def path(self, name: str) -> bytes:
        """Return an object's path at the server."""
        return self.place.path + b"/" + name.encode("ascii")

    def session(self, deadline: float) -> Session:
        """Return the one there is, or another one when it is broken.

        Raises:
            AccessDenied, RemoteError: there is no logging in.
            TimedOut: not by ``deadline``.

        """
        with self._lock:
            session = self._session
            if session is not None and not session.connection.is_broken:
                return session
            login = self._login
            if login is None:
                self._check_refusal()
                login = self._login = _Login()
                try:
                    start_new_thread(self._log_in, (login,))
                except RuntimeError:
                    # The container may have no more threads (--pids-limit).
                    self._login = None
                    raise Unreachable(f"{self._where}: no thread to be had") from None
        if not login.done.acquire(timeout=max(deadline - monotonic(), 0.001)):
            raise TimedOut(f"{self._where}: no login in time")
        login.done.release()
        if login.session is not None:
            return login.session
        problem = login.problem or Unreachable(f"{self._where}: closed")
        raise type(problem)(str(problem))

    def forget(self, name: str) -> None:
        """Open object ``name`` anew for the next fetch, since there is another in its place."""
        with self._lock:
            session = self._session
            file = session.handles.pop(name, None) if session is not None else None
            if file is None:
                return
            file.is_stale = True
            is_used = file.users > 0  # then its last user closes it
        if session is not None and not is_used:
            session.connection.forget(file.handle)

    def _check_refusal(self) -> None:
        """Return when to try to log in is worth it.

        Raises:
            AccessDenied: the same credentials have been refused a short time ago.

        """
        if self._refused is not None:
            error, stamp, when_s = self._refused
            if monotonic() - when_s < REFUSED_S and stamp == stamp_of(self._auth):
                raise AccessDenied(str(error))

    def _log_in(self, login: _Login) -> None:
        """Log in and tell those who wait for it: a thread."""
        stamp = stamp_of(self._auth)
        try:
            login.session = Session(self._connect())
        except BootfsError as error:
            login.problem = error
        except BaseException as error:
            login.problem = Unreachable(f"{self._where}: {error!r}")
        with self._lock:
            self._login = None
            if not self._is_closed:
                self._session = login.session
            is_refused = isinstance(login.problem, AccessDenied)
            self._refused = (
                (AccessDenied(str(login.problem)), stamp, monotonic()) if is_refused else None
            )
        login.done.release()

    def _connect(self) -> SftpConnection:
        credentials = self._program.read_login(self._auth)
        try:
            known_hosts = f"{self._auth}/known_hosts" if self._auth else "~/.ssh/known_hosts"
            connection = SftpConnection(
                SshChild(
                    self._program.command_for(self.place, credentials),
                    self._program.environment_for(credentials),
                ),
                self._where,
                lambda said: explain(said, self._where, known_hosts, credentials.tried),
            )
            try:
                connection.begin(LOGIN_LIMIT_S)
            except BaseException:
                connection.close()
                raise
            return connection
        finally:
            credentials.close()

    def _open(self, session: Session, name: str, deadline: float) -> Handle:
        """Return an open file for one more user; `_leave` ends the use."""
        with self._lock:
            file = session.handles.pop(name, None)
            if file is not None:
                session.handles[name] = file
                file.users += 1
                return file
        return Handle(session.connection.open(self.path(name), deadline))

    def _leave(self, session: Session, name: str, file: Handle, is_good: bool) -> None:
        """End the use of an open file, which is kept when it ``is_good``."""
        surplus: list[Handle] = []
        with self._lock:
            file.users -= 1
            kept = session.handles.get(name)
            if kept is None and is_good and not file.is_stale:
                session.handles[name] = file
            elif kept is file and not is_good:
                # It may be replaced: who asks again opens what is there then.
                del session.handles[name]
            if session.handles.get(name) is not file and not file.users:
                surplus.append(file)
            idle = [n for n, f in session.handles.items() if not f.users]
            for other in idle[: max(len(session.handles) - KEPT_HANDLES, 0)]:
                surplus.append(session.handles.pop(other))
        for unused in surplus:
            session.connection.forget(unused.handle)
