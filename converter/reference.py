"""References to images, in the notation of containers/skopeo."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from store.errors import UsageError
from store.format.shownurl import shown
from store.write.registry.endpoint import (
    COMPONENT,
    EITHER,
    HOST,
    NAME_LIMIT,
    SCHEMES,
    parse_endpoint,
)

DOCKER = EITHER
"""An image in a registry; see `REGISTRY` for all the ways to speak to one."""
REGISTRY = SCHEMES
DOCKER_DAEMON = "docker-daemon"
DOCKER_ARCHIVE = "docker-archive"
OCI = "oci"
OCI_ARCHIVE = "oci-archive"
DIR = "dir"
TAR = "tar"

ROOT_ALONE = (DIR, TAR)
"""Where there is a root file system alone: its reference is a path and nothing else."""
_PATHS = (DOCKER_ARCHIVE, OCI, OCI_ARCHIVE, DIR, TAR)
_TRANSPORTS = (DOCKER_DAEMON, DOCKER_ARCHIVE, OCI, OCI_ARCHIVE, DIR, TAR)
_KNOWN_ELSEWHERE = ("docker", "containers-storage", "ostree", "tarball", "sif", "atomic")
_FORMS = (
    "use docker-daemon:NAME[:TAG], docker-archive:PATH[:NAME:TAG], oci:PATH[:TAG], "
    "oci-archive:PATH[:TAG], docker://HOST/NAME[:TAG], dir:PATH, tar:PATH, "
    "or a bare NAME[:TAG] of the local engine"
)

_NAME = re.compile(rf"(?:{HOST}/)?{COMPONENT}(?:/{COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
# What the OCI image-spec allows in org.opencontainers.image.ref.name.
_REF_NAME = re.compile(r"[A-Za-z0-9]+(?:[-._:@/+]+[A-Za-z0-9]+|--[A-Za-z0-9]+)*\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image is, or shall be."""

    transport: str
    """`DOCKER_DAEMON`, `DOCKER_ARCHIVE`, `OCI`, `OCI_ARCHIVE`, `DIR`, `TAR` or one of
    `REGISTRY`."""
    name: str
    """The engine's name of the image (with ``@sha256:…``, or ``sha256:…`` alone, where
    the user gave a digest), the path of the archive, layout, directory or tar, or a
    registry's host and repository (with ``@sha256:…`` where the user gave a digest)."""
    tag: str = ""
    """The tag; for docker-archive ``NAME:TAG`` within the archive; empty if there is none."""

    def __str__(self) -> str:
        """Return the reference as the user may type it, transport included."""
        slashes = "//" if self.is_registry else ""
        return f"{self.transport}:{slashes}{self.name}" + (f":{self.tag}" if self.tag else "")

    @property
    def is_registry(self) -> bool:
        """Whether the image is in a registry."""
        return self.transport in REGISTRY

    @property
    def repository_url(self) -> str:
        """The repository that an image of a registry is in."""
        return f"{self.transport}://{self.name.partition('@')[0]}"

    @property
    def manifest_name(self) -> str:
        """What the manifest of an image of a registry is called there: a tag or a digest."""
        return self.tag or self.name.partition("@")[2]

    def is_place_of(self, other: Reference) -> bool:
        """Whether an image written here takes the place of ``other``."""
        if self.transport in _PATHS:
            is_same = os.path.realpath(self.name) == os.path.realpath(other.name)
            return other.transport in _PATHS and is_same and self.tag == other.tag
        is_kind = self.is_registry == other.is_registry and other.transport not in _PATHS
        return is_kind and (self.name, self.tag) == (other.name, other.tag)

    @property
    def engine_name(self) -> str:
        """What the engine calls the image: name and tag, or a digest."""
        return f"{self.name}:{self.tag}" if self.tag else self.name


def parse_reference(text: str) -> Reference:
    """Return the reference that ``text`` means.

    Without a transport it is the local engine's.  Names without a tag or digest, of the
    engine and of registries, get ``latest``.

    Raises:
        UsageError: it is not a reference, or one of a transport that is not supported.

    """
    transport, colon, rest = text.partition(":")
    if colon and transport in _TRANSPORTS:
        if not rest:
            raise UsageError(f"{shown(text)!r}: nothing follows {transport}:; {_FORMS}")
        if transport == DOCKER_DAEMON:
            return _parse_engine_name(rest, text)
        if transport in ROOT_ALONE:
            if "\0" in rest:
                raise UsageError(f"{shown(text)!r}: there is no path; {_FORMS}")
            return Reference(transport, rest)
        return _parse_path(transport, rest, text)
    if transport in REGISTRY and rest.startswith("//"):
        return _parse_registry_name(transport, rest.removeprefix("//"), text)
    if colon and (rest.startswith("//") or (transport in _KNOWN_ELSEWHERE and "/" in rest)):
        raise UsageError(f"{shown(text)!r}: the transport {transport}: is not supported; {_FORMS}")
    return _parse_engine_name(text, text)


def _parse_engine_name(name: str, text: str) -> Reference:
    if _DIGEST.match(name):
        return Reference(DOCKER_DAEMON, name)
    name, at, digest = name.partition("@")
    if at and not _DIGEST.match(digest):
        raise UsageError(f"{shown(text)!r}: what follows '@' is not a sha256 digest; {_FORMS}")
    name, tag = _split_tag(name)
    if not _NAME.match(name) or len(name) > NAME_LIMIT or (tag is not None and not _TAG.match(tag)):
        lower = " (names are lower case)" if name != name.lower() else ""
        raise UsageError(f"{shown(text)!r} is not the name of an image{lower}; {_FORMS}")
    if at:
        return Reference(DOCKER_DAEMON, f"{name}@{digest}")
    return Reference(DOCKER_DAEMON, name, "latest" if tag is None else tag)


def _parse_registry_name(transport: str, name: str, text: str) -> Reference:
    name, at, digest = name.partition("@")
    if at and "/" in digest:
        raise UsageError(
            f"{shown(text)!r}: there is no user name in a reference; use `docker login`; {_FORMS}"
        )
    if at and not _DIGEST.match(digest):
        raise UsageError(f"{shown(text)!r}: what follows '@' is not a sha256 digest; {_FORMS}")
    name, tag = _split_tag(name)
    if tag is not None and not _TAG.match(tag):
        raise UsageError(f"{shown(text)!r}: there is no such tag; {_FORMS}")
    try:
        endpoint = parse_endpoint(f"{transport}://{name}")
    except UsageError as error:
        raise UsageError(f"{shown(text)!r} is not the name of an image; {_FORMS}") from error
    name = f"{endpoint.host}/{endpoint.repository}"
    if at:
        return Reference(transport, f"{name}@{digest}")
    return Reference(transport, name, "latest" if tag is None else tag)


def _split_tag(name: str) -> tuple[str, str | None]:
    # A colon before a slash is a port's.
    head, colon, tag = name.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (name, None)


def _parse_path(transport: str, rest: str, text: str) -> Reference:
    # As in skopeo, a path cannot hold a colon.
    path, colon, tag = rest.partition(":")
    if not path or "\0" in path:
        raise UsageError(f"{shown(text)!r}: there is no path; {_FORMS}")
    if not colon:
        return Reference(transport, path)
    if not tag:
        raise UsageError(f"{shown(text)!r}: nothing follows the last colon; {_FORMS}")
    if tag.startswith("@"):
        raise UsageError(
            f"{shown(text)!r}: images are chosen by name here, not by position; {_FORMS}"
        )
    if transport == DOCKER_ARCHIVE:
        return Reference(transport, path, _parse_engine_name(tag, text).engine_name)
    if not _REF_NAME.match(tag):
        raise UsageError(f"{shown(text)!r}: there is no such tag; {_FORMS}")
    return Reference(transport, path, tag)


def familiar_name(name: str) -> str:
    """Return an engine name without the parts that Docker adds by itself.

    ``docker.io/library/debian:12`` and ``debian:12`` are the same image.
    """
    for host in ("docker.io/", "index.docker.io/"):
        name = name.removeprefix(host)
    return name.removeprefix("library/")
