"""Logging in to an SFTP server: once for all who wait, and again when a connection breaks."""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from time import monotonic

from store.errors import AccessDenied, BootfsError, TimedOut, Unreachable
from store.read.sftp import SftpConnection
from store.read.sshchild import SshChild
from store.read.sshlogin import KNOWN_HOSTS, Stamp, stamp_of
from store.read.sshprogram import CONNECT_LIMIT_S
from store.read.sshsaid import explain

LOGIN_LIMIT_S = 2.0 * CONNECT_LIMIT_S
"""What connecting and logging in may take together."""
REFUSED_S = 60.0
"""So long who was refused does not try again with the same credentials: servers lock such out."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from store.format.sshurl import SshPlace
    from store.read.sshprogram import SshProgram


class Handle:
    """A file that is open at the server; ``users`` read it now."""

    __slots__ = ("handle", "users")

    def __init__(self, handle: bytes) -> None:
        self.handle = handle
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


class SshSessions:
    """The session with a server that there is now; may be asked for by many threads at once."""

    def __init__(self, place: SshPlace, program: SshProgram, auth: str) -> None:
        self.where = f"ssh://{place.authority}"
        self.lock = allocate_lock()
        """Also of what a session's handles are."""
        self._place = place
        self._program = program
        self._auth = auth
        self._session: Session | None = None
        self._login: _Login | None = None
        self._is_closed = False
        self._problem = ""
        """Why the last login failed; empty when it did not."""
        self._refused: tuple[AccessDenied, Stamp, float] | None = None
        """Why nobody is let in, with which credentials, and when that was."""

    @property
    def current(self) -> Session | None:
        """The one there is, broken or not."""
        return self._session

    def take(self, deadline: float) -> Session:
        """Return the one there is, or another one when it is broken.

        Raises:
            AccessDenied, RemoteError: there is no logging in.
            TimedOut: not by ``deadline``.

        """
        with self.lock:
            session = self._session
            if session is not None and not session.connection.is_broken:
                return session
            login = self._login or self._begin_login()
        if not login.done.acquire(timeout=max(deadline - monotonic(), 0.001)):
            before = f"; the one before: {self._problem}" if self._problem else ""
            raise TimedOut(f"{self.where}: no login in time{before}")
        login.done.release()
        if login.session is not None:
            return login.session
        problem = login.problem or Unreachable(f"{self.where}: closed")
        raise type(problem)(str(problem))

    def close(self) -> None:
        """Log out; nobody may ask for a session any more."""
        with self.lock:
            self._is_closed = True
            login, session = self._login, self._session
            self._session = None
        if login is not None:
            with login.done:
                session = login.session or session
        if session is not None:
            session.connection.close()

    def _begin_login(self) -> _Login:
        """Log in in a thread of its own, so that each who waits may leave when he must.

        Raises:
            AccessDenied: the same credentials have been refused a short time ago.
            Unreachable: there is no thread to be had.

        """
        if self._refused is not None:
            error, stamp, when_s = self._refused
            if monotonic() - when_s < REFUSED_S and stamp == stamp_of(self._auth):
                raise AccessDenied(str(error))
        login = _Login()
        try:
            start_new_thread(self._log_in, (login,))
        except RuntimeError:
            # The container may have no more threads (--pids-limit).
            raise Unreachable(f"{self.where}: no thread to be had") from None
        self._login = login
        return login

    def _log_in(self, login: _Login) -> None:
        """Log in and tell those who wait for it: a thread."""
        stamp = stamp_of(self._auth)
        try:
            login.session = Session(self._connect())
        except BootfsError as error:
            login.problem = error
        except BaseException as error:
            login.problem = Unreachable(f"{self.where}: {error!r}")
        with self.lock:
            self._login = None
            self._problem = str(login.problem or "")
            if not self._is_closed:
                self._session = login.session
            is_refused = isinstance(login.problem, AccessDenied)
            self._refused = (
                (AccessDenied(str(login.problem)), stamp, monotonic()) if is_refused else None
            )
        login.done.release()

    def _connect(self) -> SftpConnection:
        credentials = self._program.read_login(self._auth)
        known_hosts = f"{self._auth or '~/.ssh'}/{KNOWN_HOSTS}"
        try:
            child = SshChild(
                self._program.command_for(self._place, credentials),
                self._program.environment_for(credentials),
            )
            connection = SftpConnection(
                child,
                self.where,
                lambda said: explain(said, self.where, known_hosts, credentials.tried),
            )
            try:
                connection.begin(LOGIN_LIMIT_S)
            except BaseException:
                connection.close()
                raise
            return connection
        finally:
            credentials.close()
