"""Who we are to a registry: Basic, or Bearer with tokens from the service that it names.

docker's token authentication (as distribution's specifications describe it).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from time import monotonic
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from store.errors import AccessDenied, RemoteProtocolError
from store.format.distribution import Challenge, parse_challenges
from store.write.registry.accounts import Account, Accounts
from store.write.registry.endpoint import Endpoint

CLIENT_ID = "bootfs"
_LEAST_LIFE_S = 60.0
"""How long a token is good for that does not say, by the specification."""
_MARGIN_S = 10.0
"""So long before its end a token is renewed, or at half of its life if that is sooner."""

Scopes = frozenset[str]
"""What a token is to allow: ``repository:NAME:pull,push``."""


class Asking(Protocol):
    """How a token service is asked: one request, without credentials of the session's own."""

    def __call__(
        self, method: str, url: str, *, headers: dict[str, str], fields: dict[str, str | list[str]]
    ) -> tuple[int, bytes]:
        """Return status and body of the answer."""


class Authorization:
    """The Authorization header for each of a session's requests.  For many threads."""

    def __init__(self, endpoint: Endpoint, accounts: Accounts, ask: Asking) -> None:
        self._endpoint = endpoint
        self._accounts = accounts
        self._ask = ask
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._basic = ""
        self._tokens: dict[Scopes, tuple[str, float]] = {}
        self._used = ""

    def header(self, scopes: Scopes) -> str:
        """Return the header for a request that needs ``scopes``; empty while none was asked for.

        Raises:
            AccessDenied: the token service refuses.
            RemoteError: it does not answer as it should.

        """
        with self._lock:
            if self._challenge is None:
                return ""
            if self._challenge.scheme == "basic":
                return self._basic
            token, until = self._tokens.get(scopes, ("", 0.0))
            if monotonic() >= until:
                token = self._renew(scopes)
            return f"Bearer {token}"

    def learn(self, answer: httpx.Response, scopes: Scopes, sent: str) -> None:
        """Take in what an answer 401 asks for, after a request that ``sent`` was sent with.

        Accounts are looked up again, since they may have changed.

        Raises:
            AccessDenied: there is no account, or nothing that bootfs can do.
            RemoteError: the token service does not answer as it should.

        """
        challenge = self._choose(parse_challenges(answer.headers.get("www-authenticate", "")))
        with self._lock:
            self._challenge = challenge
            if challenge.scheme == "basic":
                account = self._account()
                if account is None or not account.username:
                    raise self.denied("it asks for an account")
                self._basic = account.basic
                return
            held, _ = self._tokens.get(scopes, ("", 0.0))
            if f"Bearer {held}" == sent or not held:
                self._renew(scopes)

    def denied(self, said: str) -> AccessDenied:
        """Return the error for a registry that refuses what was sent; it names its origin."""
        host = self._endpoint.host
        if self._used:
            tried = f"tried with the account from {self._used}: check it and what it may do, or"
        else:
            tried = f"no account for {host} in {self._accounts.places()}: check the name, or"
        return AccessDenied(
            f"{self._endpoint}: access denied, {said}; {tried} run `docker login {host}`"
        )

    def _account(self) -> Account | None:
        account = self._accounts.find(self._endpoint)
        self._used = account.origin if account is not None else ""
        return account

    def _choose(self, challenges: Iterable[Challenge]) -> Challenge:
        known = {challenge.scheme: challenge for challenge in challenges}
        if "bearer" in known and known["bearer"].fields.get("realm"):
            return known["bearer"]
        if "basic" in known:
            return known["basic"]
        asked = ", ".join(map(ascii, known)) or "nothing that it names"
        raise AccessDenied(
            f"{self._endpoint}: the registry asks for authentication by {asked}; "
            "bootfs knows Basic and Bearer"
        )

    def _renew(self, scopes: Scopes) -> str:
        account = self._account()
        started = monotonic()
        if account is not None and account.registry_token:
            token, life_s = account.registry_token, _LEAST_LIFE_S
        else:
            token, life_s = self._fetch(account, scopes)
        self._tokens[scopes] = (token, started + max(life_s / 2, life_s - _MARGIN_S))
        return token

    def _fetch(self, account: Account | None, scopes: Scopes) -> tuple[str, float]:
        assert self._challenge is not None
        parameters = self._challenge.fields
        realm = parameters["realm"]
        self._check_realm(realm)
        wanted = sorted(scopes)
        fields: dict[str, str | list[str]] = {"client_id": CLIENT_ID}
        if parameters.get("service"):
            fields["service"] = parameters["service"]
        headers: dict[str, str] = {}
        if account is not None and account.identity_token:
            fields |= {"grant_type": "refresh_token", "refresh_token": account.identity_token}
            fields["scope"] = " ".join(wanted)
            status, body = self._ask("POST", realm, headers=headers, fields=fields)
        else:
            fields["scope"] = wanted
            if account is not None and account.username:
                fields["account"] = account.username
                headers["Authorization"] = account.basic
            status, body = self._ask("GET", realm, headers=headers, fields=fields)
        host = urlsplit(realm).hostname
        if status in (400, 401, 403, 404):
            raise self.denied(f"its token service at {host} says HTTP status {status}")
        return self._parse(body, f"{self._endpoint}: token service at {host}")

    def _check_realm(self, realm: str) -> None:
        parts = urlsplit(realm)
        allowed = ("https", "http") if self._endpoint.is_plain else ("https",)
        if parts.scheme not in allowed or not parts.hostname:
            # Passwords go there.
            raise AccessDenied(
                f"{self._endpoint}: the registry names {parts.scheme}://{parts.hostname} as its "
                "token service, which is not HTTPS; have it name an HTTPS address"
            )

    @staticmethod
    def _parse(body: bytes, where: str) -> tuple[str, float]:
        try:
            answer = json.loads(body)
            token = answer.get("token") or answer["access_token"]
            life_s = float(answer.get("expires_in") or _LEAST_LIFE_S)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # Without the cause, which may hold a token.
            raise RemoteProtocolError(f"{where}: the answer holds no token; see its log") from None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RemoteProtocolError(f"{where}: the token is not one; see its log")
        return token, life_s
