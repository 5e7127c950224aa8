"""A registry's store as commands of this machine read it: by docker's accounts.

The requests are those of a container.
"""

from __future__ import annotations

from store.format.distribution import Challenge, encode_query, token_fields
from store.format.http1 import Endpoint, resolve_redirect
from store.read.connection import Connection
from store.read.dockerconfig import Credentials
from store.read.registry import RegistrySource
from store.read.registryauth import Authorization
from store.read.retry import Outage
from store.write.hostaccess import (
    RegistryAccess,
    auth_directory,
    environment_proxy,
    machine_authorities,
)
from store.write.registry.accounts import Accounts
from store.write.registry.endpoint import parse_endpoint
from store.write.registry.tokens import CLIENT_ID


class HostAuthorization(Authorization):
    """What an account of this user lets in: also one of a credential helper, or a refresh token."""

    def __init__(
        self,
        url: str,
        endpoint: Endpoint,
        repository: str,
        authorities: str,
        access: RegistryAccess,
    ) -> None:
        super().__init__(endpoint, repository, "", authorities, access)
        self._accounts = Accounts.of_user()
        self._registry = parse_endpoint(url)

    @property
    def tried(self) -> str:
        """What was tried, for messages."""
        host = self._registry.host
        if self._credentials.path:
            return f"tried with the account from {self._credentials.path}: check what it may do"
        return (
            f"no account for {host} in {self._accounts.places()}: check the name, or run "
            f"`docker login {host}`"
        )

    def _read(self) -> Credentials:
        account = self._accounts.find(self._registry)
        if account is None:
            return Credentials("")
        basic = account.basic.removeprefix("Basic ") if account.username else ""
        return Credentials(account.origin, basic, account.registry_token, account.identity_token)

    def _token_request(self, challenge: Challenge, connection: Connection, target: str) -> bytes:
        if not self._credentials.identity:
            return super()._token_request(challenge, connection, target)
        form = encode_query(
            token_fields(self._repository, challenge)
            | {
                "grant_type": "refresh_token",
                "client_id": CLIENT_ID,
                "refresh_token": self._credentials.identity,
            }
        )
        # Without the query of a GET: what is said of the token stands in the form.
        realm, server = resolve_redirect(self.endpoint, "/", challenge.fields["realm"])
        place, more = connection.route(realm)
        return (
            f"POST {place} HTTP/1.1\r\nHost: {server.authority}\r\nUser-Agent: bootfs\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(form)}\r\nAccept-Encoding: identity\r\n{more}\r\n{form}"
        ).encode("ascii")


class HostRegistrySource(RegistrySource):
    """Packs in a repository, read with the account that `docker login` has left."""

    def __init__(self, url: str, read_limit_s: float, outage: Outage) -> None:
        """Keep where it is.

        Raises:
            UsageError: it is no URL of a repository.
            AccessDenied: what says whom to trust cannot be read.

        """
        registry = parse_endpoint(url)
        proxy_of = _no_proxy if registry.is_loopback else environment_proxy
        self._url = url
        self._host_access = RegistryAccess(registry.host, auth_directory(), proxy_of)
        try:
            super().__init__(
                url, read_limit_s, machine_authorities(), "", self._host_access, outage
            )
        except BaseException:
            self._host_access.close()
            raise

    def _open_authorization(self, repository: str, auth: str) -> Authorization:
        del auth
        return HostAuthorization(
            self._url, self._endpoint, repository, self._authorities, self._host_access
        )


def _no_proxy(origin: str) -> str:
    """Return nothing: proxies are for other machines."""
    del origin
    return ""
