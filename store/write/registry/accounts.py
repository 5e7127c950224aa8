"""Accounts at registries, from the files in which Docker and Podman keep them.

docker's ``config.json`` (docker/cli, cli/config/configfile) and Podman's ``auth.json``
(containers-auth.json(5)) have one form.  Nothing of an account but where it was found
appears in a message.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from store.errors import AccessDenied
from store.format.repositoryurl import HUB
from store.read.dockerconfig import find_entry, normal_key
from store.write.registry.endpoint import DOCKER_HUB, Endpoint
from store.write.registry.helpers import HUB_SERVER, HelperAnswer, ask_helper

_FILE_LIMIT = 4 << 20


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
    try:
        entry = find_entry(document.get("auths") or {}, endpoint.host, endpoint.repository)
    except ValueError:
        # Without the cause, which may show a part of it.
        raise AccessDenied(
            f"{path}: what it has for {endpoint.host} is no account; log in again"
        ) from None
    if entry is not None:
        return Account(str(path), entry.username, entry.password, entry.identity, entry.bearer)
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


def _helper_for(document: dict[str, object], endpoint: Endpoint) -> str:
    hosts = HUB if endpoint.host == DOCKER_HUB else (endpoint.host,)
    helpers = document.get("credHelpers")
    if isinstance(helpers, dict):
        for key, helper in helpers.items():
            if normal_key(key) in hosts and isinstance(helper, str):
                return helper
    store = document.get("credsStore")
    return store if isinstance(store, str) else ""


def _from_helper(answer: HelperAnswer, origin: str) -> Account:
    if answer.is_token:
        return Account(origin, identity_token=answer.secret)
    return Account(origin, answer.username, answer.secret)


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
