"""Where a repository is: the registry's host, how it is spoken to, and the repository's name."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from store.errors import UsageError

SECURE = "docker+https"
PLAIN = "docker+http"
EITHER = "docker"
"""HTTPS, but for loopback hosts, which have no certificates as a rule: plain HTTP."""
SCHEMES = (EITHER, PLAIN, SECURE)

DOCKER_HUB = "docker.io"
_HUB_NAMES = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
_HUB_SERVER = "registry-1.docker.io"
_HUB_OFFICIAL = "library/"

FORMS = (
    "give docker://HOST[:PORT]/REPOSITORY, or docker+http://… for a registry without TLS "
    "that is not on this machine"
)

# The grammar of github.com/distribution/reference.
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
"""A part of a repository's name, as a regular expression."""
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
"""A host, with its port if it has one, as a regular expression."""
NAME_LIMIT = 255
"""The longest name, host included."""
_HOST = re.compile(rf"{HOST}\Z")
_REPOSITORY = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*\Z")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One repository of one registry."""

    scheme: str
    """As the user wrote it: one of `SCHEMES`."""
    host: str
    """Host and port as the user knows them; ``docker.io`` for all names of Docker Hub."""
    repository: str

    def __str__(self) -> str:
        """Return the URL that means this repository."""
        return f"{self.scheme}://{self.host}/{self.repository}"

    @property
    def is_plain(self) -> bool:
        """Whether it is spoken to without TLS."""
        return self.scheme == PLAIN or (self.scheme == EITHER and self.is_loopback)

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, by its name or address alone."""
        return is_loopback(self.host)

    @property
    def api(self) -> str:
        """Where the registry's API begins, ``https://HOST/v2/``."""
        server = _HUB_SERVER if self.host == DOCKER_HUB else self.host
        return f"{'http' if self.is_plain else 'https'}://{server}/v2/"

    @property
    def base(self) -> str:
        """Where the API of the repository begins, with a slash at the end."""
        return f"{self.api}{self.repository}/"


def parse_endpoint(url: str) -> Endpoint:
    """Return the repository that ``url`` means.

    A name without a host is Docker Hub's, and without a slash too one of its official
    images, as with ``docker pull``.

    Raises:
        UsageError: it is no URL of a repository.

    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES or not rest:
        raise UsageError(f"{url!r}: not a repository of a registry; {FORMS}")
    host, repository = _split_host(rest)
    if (
        not _HOST.match(host)
        or not _REPOSITORY.match(repository)
        or len(host) + len(repository) >= NAME_LIMIT
    ):
        lower = " (names are lower case)" if repository != repository.lower() else ""
        raise UsageError(f"{url!r}: not a repository of a registry{lower}; {FORMS}")
    return Endpoint(scheme, host, repository)


def _split_host(name: str) -> tuple[str, str]:
    host, slash, repository = name.partition("/")
    repository = repository.removesuffix("/")
    # As with `docker pull`: what has neither dot nor port is a user of Docker Hub.
    is_host = bool(slash) and (
        "." in host or ":" in host or host == "localhost" or host != host.lower()
    )
    if not is_host:
        host, repository = DOCKER_HUB, name
    if host not in _HUB_NAMES:
        return host, repository
    return DOCKER_HUB, repository if "/" in repository else _HUB_OFFICIAL + repository


def is_loopback(host: str) -> bool:
    """Whether ``host``, perhaps with a port, names this machine without asking anybody."""
    is_bracketed = host.startswith("[")
    name = host[1:].partition("]")[0] if is_bracketed else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
