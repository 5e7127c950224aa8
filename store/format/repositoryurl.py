"""What ``docker://HOST[:PORT]/REPOSITORY`` means, to who reads a store and to who writes it.

The grammar of github.com/distribution/reference, without a module that a container would
have to import.
"""

from __future__ import annotations

EITHER = "docker"
"""HTTPS, but for loopback hosts, which have no certificates as a rule: plain HTTP."""
PLAIN = "docker+http"
SECURE = "docker+https"
SCHEMES = (EITHER, PLAIN, SECURE)
DOCKER_HUB = "docker.io"
HUB_SERVER = "registry-1.docker.io"
HUB = (DOCKER_HUB, "index.docker.io", HUB_SERVER)
"""Names of one registry: the one in references, in files of credentials, and its server's."""
NAME_LIMIT = 255
"""The longest name, host included."""

_OFFICIAL = "library/"
_DIGITS = frozenset("0123456789")
_HEX = frozenset("0123456789abcdefABCDEF:")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_WORD = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LABEL = _WORD | {"-"}
_COMPONENT = _LOWER | frozenset("._-")


class RepositoryPlace:
    """A repository: ``scheme``, one of `SCHEMES`; ``host``, with its port; ``repository``.

    ``host`` is ``docker.io`` for all names of Docker Hub.
    """

    __slots__ = ("host", "repository", "scheme")

    def __init__(self, scheme: str, host: str, repository: str) -> None:
        self.scheme = scheme
        self.host = host
        self.repository = repository

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}/{self.repository}"

    @property
    def server(self) -> str:
        """The URL of the registry's server, without a path."""
        is_plain = self.scheme == PLAIN or (self.scheme == EITHER and is_loopback(self.host))
        host = HUB_SERVER if self.host == DOCKER_HUB else self.host
        return f"{'http' if is_plain else 'https'}://{host}"


def parse_place(url: str) -> RepositoryPlace | None:
    """Return the repository that ``url`` means; None where it means none.

    A name without a host is Docker Hub's, and without a slash too one of its official
    images, as with ``docker pull``.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        return None
    host, repository = _split_host(rest)
    parts = repository.split("/")
    if (
        not _is_host(host)
        or not all(_is_component(part) for part in parts)
        or len(host) + len(repository) >= NAME_LIMIT
    ):
        return None
    return RepositoryPlace(scheme, host, repository)


def _split_host(name: str) -> tuple[str, str]:
    host, slash, repository = name.partition("/")
    # As with `docker pull`: what has neither dot nor port is a user of Docker Hub.
    is_host = bool(slash) and (
        "." in host or ":" in host or host == "localhost" or host != host.lower()
    )
    if not is_host:
        host, repository = DOCKER_HUB, name
    if "/" in name[:-1]:
        repository = repository.removesuffix("/")
    if host not in HUB:
        return host, repository
    is_official = repository and "/" not in repository
    return DOCKER_HUB, _OFFICIAL + repository if is_official else repository


def _is_host(text: str) -> bool:
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        if not bracket or not address or not _HEX.issuperset(address):
            return False
        return not port or (port[0] == ":" and _is_port(port[1:]))
    name, colon, port = text.partition(":")
    return all(_is_label(label) for label in name.split(".")) and (not colon or _is_port(port))


def _is_label(text: str) -> bool:
    return _LABEL.issuperset(text) and text != "" and text[0] != "-" and text[-1] != "-"


def _is_port(text: str) -> bool:
    return text != "" and len(text) <= 5 and _DIGITS.issuperset(text) and 0 < int(text) < 65536


def _is_component(text: str) -> bool:
    if not text or not _COMPONENT.issuperset(text) or not _LOWER.issuperset(text[0] + text[-1]):
        return False
    between = "".join(" " if c in _LOWER else c for c in text).split()
    return all(found in (".", "_", "__") or not found.strip("-") for found in between)


def is_loopback(host: str) -> bool:
    """Whether ``host``, perhaps with a port, names this machine without asking anybody."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lstrip("0:") == "1"
    name = host.partition(":")[0]
    parts = name.split(".")
    is_address = len(parts) == 4 and all(_is_octet(part) for part in parts)
    return name == "localhost" or (is_address and parts[0] == "127")


def _is_octet(text: str) -> bool:
    return (
        _DIGITS.issuperset(text) and text != "" and str(int(text[:4])) == text and int(text) < 256
    )
