"""Registries that want credentials or send elsewhere, and blobs put into one without our client."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.servers import Nginx, Registry
from tests.support.tokenserver import PASSWORD, USER, docker_config, htpasswd_auth

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = "some/where"

_FRONT = """
location = /token {{
    {basic}
    default_type application/json;
    alias {tokens}/answer;
}}
location / {{
    set $token none;
    if ($http_authorization ~ "^Bearer ([a-z0-9]+)$") {{ set $token $1; }}
    if (!-f {tokens}/$token) {{
        add_header WWW-Authenticate $asked always;
        return 401 '{{}}';
    }}
    {redirect}
    proxy_pass http://{registry};
    proxy_set_header Host $http_host;
    proxy_set_header Authorization "";
    proxy_http_version 1.1;
    client_max_body_size 0;
    proxy_request_buffering off;
}}
"""


def proxied(registry: Registry, first: str) -> str:
    """Give what has nginx pass everything on to a registry but what `first` answers."""
    return f"""
        client_max_body_size 0;
        location / {{
            {first}
            proxy_pass http://{registry.host_port};
            proxy_set_header Host $http_host;
            proxy_http_version 1.1;
            proxy_request_buffering off;
        }}
    """


def push_blob(registry: Registry, data: bytes, repository: str = REPOSITORY) -> str:
    """Put a blob into a repository; return its digest."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    uploads = f"{registry.url}v2/{repository}/blobs/uploads/"
    begin = urllib.request.Request(uploads, method="POST")
    with urllib.request.urlopen(begin) as answer:
        place = answer.headers["Location"]
    there = f"{place}{'&' if '?' in place else '?'}digest={digest}"
    headers = {"Content-Type": "application/octet-stream"}
    put = urllib.request.Request(there, data=data, method="PUT", headers=headers)
    with urllib.request.urlopen(put) as answer:
        assert answer.status == 201
    return digest


def ask_json(registry: Registry, path: str) -> Any:
    """Give what the registry answers to GET /v2/`path`."""
    kinds = ("manifest.v1", "index.v1")
    accept = ", ".join(f"application/vnd.oci.image.{kind}+json" for kind in kinds)
    request = urllib.request.Request(f"{registry.url}v2/{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def write_docker_config(
    directory: Path, host: str, password: str = PASSWORD, name: str = "config.json"
) -> Path:
    """Write what `docker login` does into a directory, made if need be; return the file."""
    directory.mkdir(exist_ok=True)
    return docker_config(directory / name, host, password)


def basic_registry(directory: Path, *, address: str = "127.0.0.1") -> Registry:
    """Start a registry that wants `USER` and `PASSWORD`."""
    return Registry(extra=htpasswd_auth(directory), address=address)


class TokenFront:
    """nginx before a registry: lets in who has a token, and gives tokens; counts are nginx's."""

    def __init__(
        self,
        registry: Registry,
        directory: Path,
        serve: Callable[..., Nginx],
        *,
        wants_password: bool = True,
        redirect: str = "",
        realm: str = "/token",
    ) -> None:
        """`redirect` is put where blobs would be given; `realm` is what the registry names."""
        self._tokens = directory / "tokens"
        self._tokens.mkdir()
        users = directory / "users"
        users.write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
        basic = f"auth_basic tokens; auth_basic_user_file {users};" if wants_password else ""
        front = _FRONT.format(
            basic=basic, tokens=self._tokens, redirect=redirect, registry=registry.host_port
        )
        if not realm.startswith("http"):
            realm = f"$scheme://$http_host{realm}"
        asked = f'Bearer realm="{realm}",service="test, of it",scope="repository:{REPOSITORY}:pull"'
        self.server = serve(directory, extra=f"set $asked '{asked}';{front}")
        self.url = f"docker://{self.server.host_port}/{REPOSITORY}"
        self.change_token("first")

    def change_token(self, token: str) -> None:
        """Let in only who has this token from now on."""
        for old in self._tokens.iterdir():
            old.unlink()
        (self._tokens / token).touch()
        (self._tokens / "answer").write_text(json.dumps({"token": token, "expires_in": 60}))

    def change_answer(self, answer: str) -> None:
        """Let the token server answer this."""
        (self._tokens / "answer").write_text(answer)
