"""Being let in by a registry: what it asks for, and the tokens that it takes.

The token authentication of the distribution project ("Token Authentication
Specification") and HTTP's own Basic.  A registry says by 401 what it wants.
"""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic

from store.errors import AccessDenied, RemoteBusy, RemoteProtocolError, TimedOut, Unreachable
from store.format.distribution import Challenge, encode_get, parse_challenges, token_place
from store.read.dockerconfig import FILES, Credentials, read_credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from store.format.http1 import Endpoint
    from store.interfaces import Access
    from store.read.connection import Connection


class Authorization:
    """What is sent as Authorization to one repository; for many threads at once.

    Credentials come from a file in directory ``auth``, read again each time that the
    registry refuses what it was sent.  They go to the registry and to the token server
    that it names, which must use TLS where the registry does.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        repository: str,
        auth: str,
        authorities: str,
        access: Access | None = None,
    ) -> None:
        self.header = ""
        """Value for the next request; empty for none."""
        self.endpoint = endpoint
        self._repository = repository
        self._directory = auth
        self._authorities = authorities
        self._access = access
        self._credentials = Credentials("")
        self._lock = allocate_lock()

    @property
    def tried(self) -> str:
        """What was tried, and what to do, for messages."""
        host, found = self.endpoint.authority, self._credentials
        if found.basic or found.bearer:
            return f"tried with {found.path}: renew what it has for {host}, or what that may do"
        if found.path:
            return (
                f"tried without credentials, since {found.path} has none for {host}: add what "
                f"`docker login {host}` writes"
            )
        where = self._directory or "/.bootfs/auth"
        return (
            f"tried without credentials, since there is no {where}/{FILES[0]}: mount a directory "
            f"with one, as `docker login {host}` writes it, at {where}"
        )

    def renew(self, refused: str, status: int, challenge: str, deadline: float) -> None:
        """Get another ``header`` than ``refused``, which was answered with ``status``.

        ``challenge`` is the answer's WWW-Authenticate.  Of many threads one asks, and the
        others wait for what it gets, until ``deadline`` at most.

        Raises:
            AccessDenied: there is none; the message names the file that was tried.
            RemoteError: the token server gave no answer, or a wrong one.

        """
        if not self._lock.acquire(timeout=max(deadline - monotonic(), 0.0)):
            raise TimedOut(f"{self.endpoint}: no token in time")
        try:
            if self.header == refused:
                self.header = self._ask(refused, status, challenge, deadline)
        finally:
            self._lock.release()

    def _ask(self, refused: str, status: int, challenge: str, deadline: float) -> str:
        before = self._credentials
        self._credentials = self._read()
        is_changed = not before.is_same(self._credentials)
        if status != 401 and not is_changed:
            # It knows who asks, and that is not allowed.
            raise self._denied(status)
        found = {one.scheme: one for one in parse_challenges(challenge)}
        if self._credentials.bearer:
            header = f"Bearer {self._credentials.bearer}"
        elif "bearer" in found:
            return f"Bearer {self._fetch_token(found['bearer'], deadline)}"
        elif self._credentials.basic and ("basic" in found or status != 401):
            header = f"Basic {self._credentials.basic}"
        else:
            raise self._denied(status)
        if header == refused:
            raise self._denied(status)
        return header

    def _read(self) -> Credentials:
        if not self._directory:
            return Credentials("")
        return read_credentials(self._directory, self.endpoint.authority, self._repository)

    def _denied(self, status: int) -> AccessDenied:
        return AccessDenied(
            f"{self.endpoint}: {status}, the registry refuses to be read; {self.tried}"
        )

    def _fetch_token(self, challenge: Challenge, deadline: float) -> str:
        """Return a token for reading the repository.

        Raises:
            AccessDenied: the token server refuses the credentials.
            RemoteError: it gave no answer, or a wrong one.

        """
        # Imported only for registries with tokens, as most are that are not local.
        from store.read.document import DocumentConnection

        target, server = token_place(self.endpoint, self._repository, challenge)
        connection = DocumentConnection(server, deadline, self._authorities, self._access)
        try:
            message = self._token_request(challenge, connection, target)
            head, begun = connection.request(message)
            if head.status in (400, 401, 403):
                raise AccessDenied(
                    f"{server}: {head.status}, the registry's token server gives no token; "
                    f"{self.tried}"
                )
            if head.status in (429, 503):
                raise RemoteBusy(f"{server}: {head.status} from the registry's token server")
            if head.status >= 500:
                raise Unreachable(f"{server}: {head.status} from the registry's token server")
            if head.status != 200:
                raise RemoteProtocolError(f"{server}: {head.status} instead of a token")
            document = connection.read_document(head, begun)
        finally:
            connection.close()
        return parse_token(document, str(server))

    def _token_request(self, challenge: Challenge, connection: Connection, target: str) -> bytes:
        """Return the request for the token that ``challenge`` asks for, with ``target``."""
        del challenge
        basic = self._credentials.basic
        return encode_own_get(connection, target, f"Basic {basic}" if basic else "")


def encode_own_get(
    connection: Connection,
    target: str,
    authorization: str,
    wanted: str = "",
    accepted: str = "",
) -> bytes:
    """Return a GET request with what the user's file ``http`` has the server told.

    An Authorization of that file goes before ``authorization``.
    """
    own = connection.own_fields(target)
    if names_authorization(own):
        authorization = ""
    target, more = connection.route(target)
    return encode_get(connection.endpoint, (target, more + own), authorization, wanted, accepted)


def names_authorization(fields: str) -> bool:
    """Whether header fields, each with its line's end, say who asks."""
    return any(line.lower().startswith("authorization:") for line in fields.split("\r\n"))


def parse_token(document: bytes, where: str) -> str:
    """Return the token in a token server's answer, which ``where`` names.

    Raises:
        RemoteProtocolError: there is none that can be sent.

    """
    # Imported only where a registry has tokens.
    from store.read.jsontext import parse_json_object, text_of

    try:
        found = parse_json_object(document)
        token = text_of(found.get("token") or found.get("access_token"))
    except ValueError:
        token = ""
    if not token or " " in token:
        # Not what it was: it may be a part of a token.
        raise RemoteProtocolError(f"{where}: the answer holds no token")
    return token
