"""Where a repository is: the registry's host, how it is spoken to, and the repository's name."""

from __future__ import annotations

from dataclasses import dataclass

from store.errors import UsageError
from store.format.repositoryurl import (
    DOCKER_HUB,
    EITHER,
    NAME_LIMIT,
    PLAIN,
    SCHEMES,
    RepositoryPlace,
    is_loopback,
    parse_place,
)
from store.format.shownurl import shown

FORMS = (
    "give docker://HOST[:PORT]/REPOSITORY, or docker+http://… for a registry without TLS "
    "that is not on this machine"
)

# The grammar of github.com/distribution/reference, as in store/format/repositoryurl.py.
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
"""A part of a repository's name, as a regular expression."""
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
"""A host, with its port if it has one, as a regular expression."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One repository of one registry."""

    scheme: str
    """One of `SCHEMES`."""
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
        return f"{RepositoryPlace(self.scheme, self.host, self.repository).server}/v2/"

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
    place = parse_place(url)
    if place is None:
        authority, _, repository = url.partition("://")[2].partition("/")
        if "@" in authority:
            raise UsageError(
                f"{shown(url)!r}: there is no user name in it; use `docker login`; {FORMS}"
            )
        lower = " (names are lower case)" if repository != repository.lower() else ""
        raise UsageError(f"{shown(url)!r}: not a repository of a registry{lower}; {FORMS}")
    return Endpoint(place.scheme, place.host, place.repository)


def normalised_url(url: str) -> str:
    """Return the one URL that means what a registry's ``url`` does; any other as it is."""
    return url if parse_place(url) is None else str(parse_endpoint(url))


__all__ = [
    "COMPONENT",
    "DOCKER_HUB",
    "EITHER",
    "FORMS",
    "HOST",
    "NAME_LIMIT",
    "SCHEMES",
    "Endpoint",
    "normalised_url",
    "parse_endpoint",
]
