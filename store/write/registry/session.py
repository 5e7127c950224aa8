"""Requests to one registry: authorized, repeated where that helps, redirects followed safely."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import httpx

from store.errors import RemoteError, RemoteProtocolError
from store.write.contact import Contact
from store.write.registry.accounts import Accounts
from store.write.registry.answers import ERROR_LIMIT, error_of
from store.write.registry.connecting import open_client
from store.write.registry.endpoint import Endpoint
from store.write.registry.failures import shown, translated
from store.write.registry.patience import Patience
from store.write.registry.tokens import Authorization, Scopes

_REDIRECTS = 5
_PIECE = 256 << 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str


@dataclass(frozen=True, slots=True)
class Body:
    """What a request sends; it can be asked for again."""

    size: int
    pieces: Callable[[], Iterator[bytes]]


class Session:
    """A client of one registry, for one repository.  For many threads; the caller closes it."""

    def __init__(
        self, endpoint: Endpoint, accounts: Accounts, limit_s: float, contact: Contact
    ) -> None:
        self.endpoint = endpoint
        self.contact = contact
        self.limit_s = limit_s
        self._client = open_client(endpoint)
        self._authorization = Authorization(endpoint, accounts, self._ask_token_service)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def scopes(self, actions: str, also_from: str = "") -> Scopes:
        """Return the scopes for ``actions`` (``pull,push``) here, and to read elsewhere."""
        wanted = {f"repository:{self.endpoint.repository}:{actions}"}
        if also_from:
            wanted.add(f"repository:{also_from}:pull")
        return frozenset(wanted)

    def ask(
        self,
        method: str,
        url: str,
        scopes: Scopes,
        *,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
        limit: int = ERROR_LIMIT,
        where: str = "",
    ) -> Answer:
        """Return the answer to a request, by one try.  Statuses of 400 and more are errors.

        ``url`` may be relative to the repository.  A body of more than ``limit`` bytes is
        refused.

        Raises:
            NotFound, AccessDenied, StorageFull, SizeMismatch, RemoteError: as `error_of`.
            RemoteProtocolError: the answer is too long.

        """
        with self.open(method, url, scopes, headers=headers, body=body, where=where) as answer:
            found = _read_some(answer, limit + 1)
            if len(found) > limit:
                raise RemoteProtocolError(
                    f"{where or shown(url)}: the answer is longer than {limit:,} bytes; "
                    "is this a registry?"
                )
            return Answer(answer.status_code, answer.headers, found, str(answer.url))

    @contextmanager
    def open(
        self,
        method: str,
        url: str,
        scopes: Scopes,
        *,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
        where: str = "",
    ) -> Iterator[httpx.Response]:
        """Give the answer to a request, its body not yet read, by one try; errors as of `ask`.

        Redirects of GET and HEAD are followed.  Credentials go to the registry alone.
        """
        url = urljoin(self.endpoint.base, url)
        where = where or shown(url)
        with translated(where):
            answer = self._authorized(method, url, scopes, headers or {}, body, where)
            try:
                for _ in range(_REDIRECTS):
                    if not answer.is_redirect or method not in ("GET", "HEAD"):
                        break
                    answer.close()
                    url = urljoin(str(answer.url), answer.headers["location"])
                    answer = self._authorized(method, url, scopes, headers or {}, body, where)
                if answer.status_code >= 400:
                    raise error_of(answer, _read_error(answer), where)
                if answer.is_redirect:
                    raise RemoteProtocolError(f"{where}: redirected where it should not be")
                yield answer
            finally:
                answer.close()

    def again(self, attempt: Callable[[], T], what: str) -> T:
        """Return what ``attempt`` returns, trying again while its errors are retryable.

        Raises:
            TimedOut: the limit ran out; the message carries the last error.
            BootfsError: as ``attempt``.

        """
        patience = Patience(self.limit_s, what, outage=self.contact)
        while True:
            try:
                return attempt()
            except RemoteError as error:
                patience.wait_after(error)

    def _authorized(
        self,
        method: str,
        url: str,
        scopes: Scopes,
        headers: dict[str, str],
        body: Body | None,
        where: str,
    ) -> httpx.Response:
        is_ours = _origin(url) == _origin(self.endpoint.api)
        if urlsplit(url).scheme != "https" and not self.endpoint.is_plain:
            # Of a redirect, the place of an upload, the next page of a list.
            raise RemoteProtocolError(
                f"{where}: sent to {shown(url)}, away from HTTPS; have the registry corrected"
            )
        if not is_ours:
            return self._send(method, url, headers, body)
        sent = self._authorization.header(scopes)
        answer = self._send(method, url, _with(headers, sent), body)
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            return self._checked(answer, where)
        answer.close()
        self._authorization.learn(answer, scopes, sent)
        answer = self._send(method, url, _with(headers, self._authorization.header(scopes)), body)
        return self._checked(answer, where)

    def _checked(self, answer: httpx.Response, where: str) -> httpx.Response:
        status = answer.status_code
        if status not in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return answer
        try:
            error = error_of(answer, _read_error(answer), where)
        finally:
            answer.close()
        if not isinstance(error, RemoteProtocolError):
            raise error  # a quota, by its words
        raise self._authorization.denied(str(error))

    def _send(
        self, method: str, url: str, headers: dict[str, str], body: Body | None
    ) -> httpx.Response:
        content = None
        if body is not None:
            headers = headers | {"Content-Length": str(body.size)}
            content = body.pieces()
        request = self._client.build_request(method, url, headers=headers, content=content)
        answer = self._client.send(request, stream=True, follow_redirects=False)
        self.contact.worked()
        return answer

    def _ask_token_service(
        self, method: str, url: str, *, headers: dict[str, str], fields: dict[str, str | list[str]]
    ) -> tuple[int, bytes]:
        where = f"{self.endpoint}: token service {shown(url)}"

        def attempt() -> tuple[int, bytes]:
            with translated(where):
                if method == "POST":
                    answer = self._client.post(url, headers=headers, data=fields)
                else:
                    # What the realm's own query holds stays.
                    target = httpx.URL(url).copy_merge_params(fields)
                    answer = self._client.get(target, headers=headers)
                if answer.status_code == 429 or answer.status_code >= 500:
                    raise error_of(answer, answer.content, where)
                return answer.status_code, answer.content

        return self.again(attempt, where)


def _with(headers: dict[str, str], authorization: str) -> dict[str, str]:
    return headers | {"Authorization": authorization} if authorization else headers


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _read_some(answer: httpx.Response, limit: int) -> bytes:
    """Return the body, or its first ``limit`` bytes and perhaps some more."""
    found = bytearray()
    for piece in answer.iter_raw(_PIECE):
        found += piece
        if len(found) >= limit:
            break
    return bytes(found)


def _read_error(answer: httpx.Response) -> bytes:
    # docker-registry states the size of the blob where it sends an error instead.
    found = bytearray()
    with suppress(httpx.TransportError):
        for piece in answer.iter_raw(_PIECE):
            found += piece[: ERROR_LIMIT - len(found)]
            if len(found) >= ERROR_LIMIT:
                break
    return bytes(found)
