"""docker-daemon: images of the local engine, through its API.

Reading spools the tar that ``docker save`` gives once; its plain layers are then
read in place.  Writing streams a docker-archive to ``docker load``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, cast

import docker
import requests
from docker.errors import APIError, DockerException
from docker.errors import ImageNotFound as EngineImageNotFound

from converter.images.archive import image_of
from converter.images.archivewriter import iter_docker_archive, with_rootfs
from converter.images.documents import encode_json
from converter.images.members import Members
from converter.images.view import ImageView, JsonObject, Layer, sha256_digest
from converter.reference import Reference
from converter.spool import Spool
from store.errors import (
    AccessDenied,
    BootfsError,
    ImageNotFound,
    RemoteError,
    RemoteProtocolError,
    TimedOut,
    Unreachable,
    UsageError,
)

# The engine is silent while it gathers a large image's layers.
_TIMEOUT_S = 900
_PIECE = 1 << 20
_SOCKET = "unix:///var/run/docker.sock"


class _Api(Protocol):
    """What is used of docker-py's ``APIClient``, whose own types leave gaps."""

    def inspect_image(self, image: str) -> JsonObject: ...

    def get_image(self, image: str, chunk_size: int) -> Iterator[bytes]: ...

    def load_image(self, data: Iterator[bytes]) -> Iterator[object]: ...


def open_daemon_image(reference: Reference, spool: Spool) -> ImageView:
    """Return an image of the engine, copied into ``spool``.

    Raises:
        ImageNotFound: the engine has no such image.
        Unreachable: no engine answers.
        AccessDenied: the user may not talk to the engine.
        StorageFull: the spool has no room for the image.

    """
    name = str(reference)
    with _engine(name) as engine:
        image_id = _image_id(engine, reference)
        # By id, so that the image stays the same if the tag moves meanwhile.
        with spool.writing(name) as file:
            for piece in engine.get_image(image_id, chunk_size=_PIECE):
                file.write(piece)
                spool.advance(len(piece))
    return image_of(Members(name, file.blob), name)


def read_image_id(reference: Reference) -> str:
    """Return what the engine calls an image by itself, mostly the digest of its config.

    Raises:
        ImageNotFound: the engine has no such image.
        Unreachable, AccessDenied, RemoteError: the engine cannot be asked.

    """
    with _engine(str(reference)) as engine:
        return _image_id(engine, reference)


def has_label(reference: Reference, label: str) -> bool:
    """Whether the engine has the image, and it has the label; nothing of it is copied.

    Raises:
        Unreachable, AccessDenied, RemoteError: the engine cannot be asked.

    """
    with _engine(str(reference)) as engine:
        try:
            found = engine.inspect_image(reference.engine_name)
        except EngineImageNotFound:
            return False
    return label in ((found.get("Config") or {}).get("Labels") or {})


def check_engine_name(reference: Reference) -> None:
    """Return when an image can be given the name that ``reference`` is.

    Raises:
        UsageError: it has a digest instead of a tag.

    """
    if not reference.tag:
        raise UsageError(f"{reference}: an image cannot be written to a digest; give NAME:TAG")


def write_daemon_image(reference: Reference, config: JsonObject, layers: Sequence[Layer]) -> str:
    """Give the engine an image and return the digest of its config, the image id.

    The tag appears when the engine has all of it.

    Raises:
        UsageError: the reference has a digest instead of a tag.
        Unreachable, AccessDenied: the engine cannot be talked to.
        RemoteError: the engine refused the image.
        IntegrityError: a layer's plain bytes are not those of its diff id.

    """
    check_engine_name(reference)
    name = str(reference)
    with _engine(name) as engine:
        archive = iter_docker_archive(config, layers, [reference.engine_name])
        # docker-py passes ``data`` on to requests, which streams an iterator.
        for line in _iter_answers(engine, archive):
            if "error" in line:
                raise RemoteError(
                    f"{name}: the engine refused the image: {line['error']}; see its log"
                )
        try:
            engine.inspect_image(reference.engine_name)
        except EngineImageNotFound as error:
            raise RemoteProtocolError(
                f"{name}: the engine took the image but does not list it; see its log"
            ) from error
    return sha256_digest(encode_json(with_rootfs(config, layers)))


def _image_id(engine: _Api, reference: Reference) -> str:
    names = [reference.engine_name]
    if reference.tag == "latest":
        # What looks like a name may be the start of an image id.
        names.append(reference.name)
    for name in names:
        try:
            found = engine.inspect_image(name)
        except EngineImageNotFound:
            continue
        return str(found["Id"])
    raise ImageNotFound(
        f"{reference}: the engine has no such image; see `docker images`, or `docker pull` it first"
    )


def _iter_answers(engine: _Api, archive: Iterator[bytes]) -> Iterator[JsonObject]:
    for answer in engine.load_image(archive):
        if isinstance(answer, dict):
            yield answer


@contextmanager
def _engine(name: str) -> Iterator[_Api]:
    with open_engine(name) as engine:
        yield cast("_Api", engine)


@contextmanager
def open_engine(name: str, timeout_s: int = _TIMEOUT_S) -> Iterator[object]:
    """Give a client of the engine, docker-py's ``APIClient``.

    ``name`` is what messages begin with.

    Raises:
        Unreachable, AccessDenied, TimedOut, RemoteError: what goes wrong with it, whenever.

    """
    _check_socket(name)
    try:
        engine = docker.from_env(timeout=timeout_s)
        try:
            yield engine.api
        finally:
            engine.close()
    except BootfsError:
        raise
    except requests.Timeout as error:
        raise TimedOut(
            f"{name}: the engine gave no answer in {timeout_s} s; see its log"
        ) from error
    except APIError as error:
        raise RemoteError(
            f"{name}: the engine answered: {error.explanation or error}; see its log"
        ) from error
    except (DockerException, requests.RequestException, ValueError) as error:
        raise _unreachable(name, error) from error


def _check_socket(name: str) -> None:
    """Connect to the engine's socket once: docker-py wraps what is wrong with it deeply.

    Raises:
        Unreachable: nobody listens.
        AccessDenied: the user may not connect.

    """
    host = os.environ.get("DOCKER_HOST") or _SOCKET
    if not host.startswith("unix://"):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(host.removeprefix("unix://"))
        except PermissionError as error:
            raise AccessDenied(
                f"{name}: this user may not use the engine's socket {host}: "
                "run as root or join the group docker"
            ) from error
        except OSError as error:
            raise _unreachable(name, f"{host}: {error.strerror}") from error


def _unreachable(name: str, problem: object) -> Unreachable:
    return Unreachable(
        f"{name}: no Docker engine answers ({problem}); "
        "start it, or set DOCKER_HOST to where it listens"
    )
