"""Credentials for registries, from a file as `docker login` or Kubernetes writes it.

Only ``auths`` is read: a container has no helper programs to ask.
"""

from __future__ import annotations

import binascii

from store.errors import AccessDenied
from store.format.repositoryurl import HUB

FILES = ("config.json", ".dockerconfigjson")
"""Docker's own name of it, and the one that a Kubernetes secret has."""
LIMIT = 1 << 20
"""Bytes of such a file."""


class Credentials:
    """What a file says for one repository; both texts are empty where it says nothing.

    ``path`` names the file that was tried, for messages; empty where there is none.
    """

    __slots__ = ("basic", "bearer", "identity", "path")

    def __init__(self, path: str, basic: str = "", bearer: str = "", identity: str = "") -> None:
        self.path = path
        self.basic = basic
        """User and password, as the scheme Basic wants them (RFC 7617)."""
        self.bearer = bearer
        """A token that the registry takes as it is."""
        self.identity = identity
        """A token that the registry's token server takes; of users of commands alone."""

    def is_same(self, other: Credentials) -> bool:
        """Whether the registry would be told the same."""
        told = (self.basic, self.bearer, self.identity)
        return told == (other.basic, other.bearer, other.identity)


class Entry:
    """An account of such a file: texts that are empty where it says nothing."""

    __slots__ = ("basic", "bearer", "identity", "password", "username")

    def __init__(self, username: str, password: str, bearer: str, identity: str) -> None:
        """Take them.

        Raises:
            ValueError: a name or password is in no encoding, being half of a surrogate pair.

        """
        self.username = username
        self.password = password
        self.bearer = bearer
        self.identity = identity
        pair = f"{username}:{password}".encode()
        self.basic = binascii.b2a_base64(pair, newline=False).decode() if username else ""


def read_credentials(directory: str, host: str, repository: str) -> Credentials:
    """Return what the file in ``directory`` says for a repository of ``host``.

    The longest of its keys counts that names the host or the repository's beginning.

    Raises:
        AccessDenied: the file cannot be read, or is none; the message names it.

    """
    for name in FILES:
        path = f"{directory}/{name}"
        try:
            with open(path, "rb", buffering=0) as file:
                data = file.read(LIMIT) or b""
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            raise AccessDenied(
                f"{directory}: a file; mount the directory that holds {name} there"
            ) from None
        except OSError as error:
            raise AccessDenied(f"{path}: {error.strerror}; it must be readable by root") from None
        return parse_credentials(path, data, host, repository)
    return Credentials("")


def parse_credentials(path: str, data: bytes, host: str, repository: str) -> Credentials:
    """Return what file ``path``, of which ``data`` are the bytes, says for a repository.

    Raises:
        AccessDenied: it is no such file; the message shows nothing of it.

    """
    # Imported only for a registry that wants credentials.
    from store.read.jsontext import parse_json_object

    try:
        entry = find_entry(parse_json_object(data)["auths"], host, repository)
    except (ValueError, KeyError):
        # Not what was wrong: that would show a part of it.
        raise AccessDenied(
            f"{path}: not a file of credentials; give one that `docker login` writes, with auths"
        ) from None
    if entry is None:
        return Credentials(path)
    if entry.identity and not entry.bearer:
        raise AccessDenied(
            f"{path}: holds an identity token for {host}; give a user name and a password"
        )
    return Credentials(path, entry.basic, entry.bearer)


def find_entry(auths: object, host: str, repository: str) -> Entry | None:
    """Return what ``auths`` of such a file has for a repository; None where that is nothing.

    Raises:
        ValueError: it is no object of accounts, or what fits is no account.  Who passes this
            on must leave its text out, which may show a part of it.

    """
    from store.read.jsontext import text_of

    if not isinstance(auths, dict):
        raise ValueError("auths is no object")
    hosts = HUB if host in HUB else (host,)
    wanted = tuple(f"{host}/{repository}/" for host in hosts)
    # An empty one stands for what a helper program has.
    fitting = [
        key
        for key, entry in auths.items()
        if entry and any(w.startswith(f"{normal_key(key)}/") for w in wanted)
    ]
    if not fitting:
        return None
    entry = auths[max(fitting, key=lambda key: len(normal_key(key)))]
    if not isinstance(entry, dict):
        raise ValueError("an account is no object")
    username, password = entry.get("username") or "", entry.get("password") or ""
    pair = text_of(entry.get("auth"))
    if pair:
        username, colon, password = (
            binascii.a2b_base64(pair, strict_mode=True).decode().partition(":")
        )
        if not colon:
            raise ValueError("auth is no pair")
        # docker pads what it writes with a byte 0.
        password = password.rstrip("\0")
    if not isinstance(username, str) or not isinstance(password, str):
        raise ValueError("a name or password is no text")
    bearer, identity = text_of(entry.get("registrytoken")), text_of(entry.get("identitytoken"))
    return Entry(username, password, bearer, identity)


def normal_key(key: str) -> str:
    """Return host and path of a key of ``auths``, which may be a URL with a version."""
    place = key.partition("://")[2] if "://" in key else key
    place = place.rstrip("/")
    for version in ("/v1", "/v2"):
        place = place.removesuffix(version)
    return place
