"""A token service that docker-registry trusts, and registries that ask for accounts."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

USER = "user"
PASSWORD = "a-password-of-tests"
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuueA.5djcjiTIZGfiZPkCs0FT7mnizswe\n"
"""USER with the bcrypt hash of PASSWORD, the only kind that docker-registry takes."""
SERVICE = "registry of tests"
ISSUER = "token service of tests"


def htpasswd_auth(directory: Path) -> str:
    """Return the section that has a `Registry` ask for USER and PASSWORD."""
    file = directory / "htpasswd"
    file.write_text(HTPASSWD)
    return f"auth: {{ htpasswd: {{ realm: tests, path: {file} }} }}\n"


def docker_config(path: Path, host: str, password: str = PASSWORD) -> Path:
    """Write USER's account at `host` as `docker login` does."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return path


@dataclass
class Granted:
    """One request that the service answered."""

    method: str
    user: str
    scopes: list[str]


@dataclass
class TokenServer:
    """Gives tokens that allow what is asked for; a context manager."""

    directory: Path
    is_anonymous: bool = False
    """Whether who has no account may read."""
    life_s: float = 300.0
    refresh_token: str = ""
    """What is taken instead of USER and PASSWORD."""
    granted: list[Granted] = field(default_factory=list)
    refused: int = 0
    closed: str = ""
    """A repository that nobody may do anything with."""
    failures: int = 0
    """So many requests are answered with status 503 first."""

    def __post_init__(self) -> None:
        self._key, self.certificate = self.directory / "token.key", self.directory / "token.crt"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj",
             "/CN=bootfs test tokens", "-keyout", str(self._key), "-out", str(self.certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def auth(self) -> str:
        """The section that has a `Registry` send its users here."""
        return (
            f'auth: {{ token: {{ realm: "{self.url}", service: "{SERVICE}", '
            f'issuer: "{ISSUER}", rootcertbundle: "{self.certificate}" }} }}\n'
        )

    def token(self, user: str, scopes: list[str]) -> str:
        """Return a signed token (RFC 7519) that allows all of `scopes`."""
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            if name == self.closed:
                continue
            allowed = actions.split(",") if user else ["pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        der = subprocess.run(
            ["openssl", "x509", "-in", str(self.certificate), "-outform", "DER"],
            check=True, capture_output=True,
        ).stdout  # fmt: skip
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": ISSUER, "sub": user, "aud": SERVICE, "jti": secrets.token_hex(8), "iat": now,
            "nbf": now - 10, "exp": now + int(self.life_s), "access": access,
        }  # fmt: skip
        signed = f"{_encoded(header)}.{_encoded(claims)}"
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(self._key)],
            input=signed.encode(), check=True, capture_output=True,
        ).stdout  # fmt: skip
        return f"{signed}.{_base64url(signature)}"

    def answer(self, method: str, authorization: str, fields: dict[str, list[str]]) -> Any:
        """Return the answer to a request, or the status that refuses it."""
        if self.failures:
            self.failures -= 1
            return 503
        user = USER if authorization == _basic(PASSWORD) else ""
        if self.refresh_token and fields.get("refresh_token") == [self.refresh_token]:
            user = USER
        is_refused = bool(authorization or "refresh_token" in fields) and not user
        if is_refused or not (user or self.is_anonymous) or fields.get("service") != [SERVICE]:
            self.refused += 1
            return 401
        scopes = [scope for value in fields.get("scope", []) for scope in value.split()]
        self.granted.append(Granted(method, user, scopes))
        name = "access_token" if method == "POST" else "token"
        return {name: self.token(user, scopes), "expires_in": self.life_s}


def _handler_for(server: TokenServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(parse_qs(urlsplit(self.path).query))

        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            self._answer(parse_qs(self.rfile.read(size).decode()))

        def _answer(self, fields: dict[str, list[str]]) -> None:
            given = self.headers.get("Authorization", "")
            found = server.answer(self.command, given, fields)
            body = b"" if isinstance(found, int) else json.dumps(found).encode()
            self.send_response(found if isinstance(found, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def _basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _encoded(value: object) -> str:
    return _base64url(json.dumps(value).encode())
