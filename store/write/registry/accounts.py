"""Accounts at registries, from the files in which Docker and Podman keep them.

docker's ``config.json`` (docker/cli, cli/config/configfile) and Podman's ``auth.json``
(containers-auth.json(5)) have one form.  Nothing of an account but where it was found
appears in a message.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from store.errors import AccessDenied
from store.write.registry.endpoint import DOCKER_HUB, Endpoint
from store.write.registry.helpers import HUB_SERVER, HelperAnswer, ask_helper

_FILE_LIMIT = 4 << 20
_HUB_KEYS = ("index.docker.io", "docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Account:
    """What to show a registry or its token service; only ``origin`` may be printed."""

    origin: str
    """The file, or helper and file, that it is from."""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """A refresh token for the registry's token service; no password then."""
    registry_token: str = field(default="", repr=False)
    """A token for the registry itself."""

    @property
    def basic(self) -> str:
        """The value of an Authorization header of scheme Basic (RFC 7617)."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


class Accounts:
    """The accounts in some files, read anew each time: they may be renewed meanwhile."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)

    @classmethod
    def of_user(cls) -> Accounts:
        """Return the accounts of who runs this, from the usual files.

        That is the one file that REGISTRY_AUTH_FILE names; or docker's, in DOCKER_CONFIG
        or ~/.docker, and then Podman's.
        """
        return cls(list(_iter_usual_files()))

    def find(self, endpoint: Endpoint) -> Account | None:
        """Return the account for a repository, from the first file that has one.

        Raises:
            AccessDenied: a file or helper that may have one cannot be used.

        """
        for path in self._files:
            found = _find_in_file(path, endpoint)
            if found is not None:
                return found
        return None

    def places(self) -> str:
        """Return where accounts are looked for, for messages."""
        return ", ".join(map(str, self._files)) or "no file"


def _iter_usual_files() -> Iterator[Path]:
    named = os.environ.get("REGISTRY_AUTH_FILE")
    if named:
        yield Path(named)
        return
    home = Path(os.environ.get("HOME") or "/")
    yield Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        yield Path(runtime) / "containers/auth.json"
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"


def _find_in_file(path: Path, endpoint: Endpoint) -> Account | None:
    document = _read_document(path)
    if document is None:
        return None
    helper = _helper_for(document, endpoint)
    if helper:
        server = HUB_SERVER if endpoint.host == DOCKER_HUB else endpoint.host
        answer = ask_helper(helper, server, str(path))
        if answer is not None:
            return _checked(_from_helper(answer, f"docker-credential-{helper}, named in {path}"))
    auths = _object(document, "auths", path)
    by_key = {_normal_key(key): value for key, value in auths.items()}
    for key in _iter_keys(endpoint):
        entry = by_key.get(key)
        if isinstance(entry, dict) and entry:
            return _checked(_from_entry(entry, path, key))
    return None


def _read_document(path: Path) -> dict[str, object] | None:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise AccessDenied(
            f"{path}: credentials cannot be read: {error.strerror}; check its owner and mode"
        ) from error
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        # Without the cause: it would hold the file's text.
        raise AccessDenied(f"{path}: not a JSON object of credentials; log in again") from None
    return document


def _object(document: dict[str, object], name: str, path: Path) -> dict[str, object]:
    value = document.get(name) or {}
    if not isinstance(value, dict):
        raise AccessDenied(f"{path}: {name} is not an object; log in again")
    return value


def _helper_for(document: dict[str, object], endpoint: Endpoint) -> str:
    helpers = document.get("credHelpers")
    if isinstance(helpers, dict):
        for key, helper in helpers.items():
            if _normal_key(key) in _host_keys(endpoint) and isinstance(helper, str):
                return helper
    store = document.get("credsStore")
    return store if isinstance(store, str) else ""


def _normal_key(key: str) -> str:
    """Return a key without scheme, version and slash at its end, which old versions wrote."""
    key = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    return key.removesuffix("/v1").removesuffix("/v2")


def _host_keys(endpoint: Endpoint) -> tuple[str, ...]:
    return _HUB_KEYS if endpoint.host == DOCKER_HUB else (endpoint.host,)


def _iter_keys(endpoint: Endpoint) -> Iterator[str]:
    """Yield the keys that fit, the most special first: Podman has some for parts of a registry."""
    hosts = _host_keys(endpoint)
    path = endpoint.repository
    while path:
        for host in hosts:
            yield f"{host}/{path}"
        path = path.rpartition("/")[0]
    yield from hosts


def _from_helper(answer: HelperAnswer, origin: str) -> Account:
    if answer.is_token:
        return Account(origin, identity_token=answer.secret)
    return Account(origin, answer.username, answer.secret)


def _from_entry(entry: dict[str, object], path: Path, key: str) -> Account:
    text = {name: value for name, value in entry.items() if isinstance(value, str)}
    username, password = text.get("username", ""), text.get("password", "")
    if text.get("auth"):
        try:
            pair = base64.b64decode(text["auth"], validate=True).decode()
        except (binascii.Error, ValueError):
            pair = ""
        if ":" not in pair:
            raise AccessDenied(
                f"{path}: auth of {key} is not user:password in base64; log in again"
            )
        username, _, password = pair.partition(":")
        # docker pads what it writes with a byte 0.
        password = password.rstrip("\0")
    return Account(
        str(path), username, password, text.get("identitytoken", ""), text.get("registrytoken", "")
    )


def _checked(account: Account) -> Account:
    """Return an account that can be sent: what cannot, some library would show in its error.

    Raises:
        AccessDenied: it holds what is no text.

    """
    texts = (account.username, account.password, account.identity_token)
    token = account.registry_token
    is_text = all(map(_is_text, texts)) and token.isascii() and (not token or token.isprintable())
    if not is_text:
        raise AccessDenied(f"{account.origin}: credentials that are no text; log in again")
    return account


def _is_text(value: str) -> bool:
    # A half of a surrogate pair, which JSON can hold, is in no encoding.
    return not any("\ud800" <= character <= "\udfff" for character in value)
