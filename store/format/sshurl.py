"""Where a store's URL of the schemes ``ssh`` and ``sftp`` points."""

from __future__ import annotations

from store.errors import UsageError
from store.format.shownurl import shown

SCHEMES = ("ssh", "sftp")
"""Two names of one thing."""
_HEX = "0123456789abcdefABCDEF"


class SshPlace:
    """A directory on a host: ``user`` and ``port`` are empty and 0 where the URL has none."""

    __slots__ = ("host", "path", "port", "user")

    def __init__(self, user: str, host: str, port: int, path: bytes) -> None:
        self.user = user
        self.host = host
        self.port = port
        self.path = path
        """Absolute, without a last slash; empty for the root."""

    @property
    def authority(self) -> str:
        """The host as a user writes it, with user and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"{user}{host}:{self.port}" if self.port else f"{user}{host}"


def is_ssh_url(url: str) -> bool:
    """Whether a URL is of a scheme that `parse_ssh_url` takes."""
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme.lower() in SCHEMES


def parse_ssh_url(url: str) -> SshPlace:
    """Return where ``ssh://[USER@]HOST[:PORT]/ABSOLUTE/PATH`` points; ``%XX`` in PATH is a byte.

    Raises:
        UsageError: not such a URL, or one with a part that a store's URL cannot have.

    """
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, address = authority.rpartition("@")
    if scheme.lower() not in SCHEMES or not slash:
        raise UsageError(f"{shown(url)!r}: not ssh://[USER@]HOST[:PORT]/ABSOLUTE/PATH")
    if ":" in user:
        raise UsageError(
            f"{shown(url)!r}: a store's URL holds no password; "
            "put it into the file 'password' of the directory with credentials"
        )
    if any(c <= " " or c > "~" for c in rest) or "?" in rest or "#" in rest:
        raise UsageError(
            f"{shown(url)!r}: only visible ASCII characters, no '?' or '#'; percent-encode others"
        )
    host, separator, port = address.rpartition(":")
    if not separator or port.endswith("]"):
        host, port = address, "0"
    elif not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise UsageError(f"{shown(url)!r}: the port is none")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    # What begins so would be an option of the program ssh.
    if not host or host.startswith("-") or user.startswith("-") or (at and not user):
        raise UsageError(f"{shown(url)!r}: no host, or a name that is none")
    if any(c in "[]\\'\"`$;&<>(){}|*! /" for c in host + user):
        raise UsageError(f"{shown(url)!r}: no host, or a name that is none")
    return SshPlace(user, host, int(port), _decoded(url, "/" + path).rstrip(b"/"))


def _decoded(url: str, path: str) -> bytes:
    """Return the path with its ``%XX`` decoded.

    Raises:
        UsageError: a ``%`` stands before no number, or for a byte that no path has.

    """
    first, *others = path.split("%")
    decoded = bytearray(first.encode("ascii"))
    for part in others:
        if len(part) < 2 or part[0] not in _HEX or part[1] not in _HEX or part[:2] == "00":
            raise UsageError(f"{shown(url)!r}: '%{part[:2]}' is no character of a path")
        decoded.append(int(part[:2], 16))
        decoded += part[2:].encode("ascii")
    return bytes(decoded)
