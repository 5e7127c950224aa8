"""Containers of the engine: which there are, and files of theirs, without rights over the machine.

Files are copied out as ``docker cp`` does, from volumes too, of containers that run and of those
that have ended.  What comes is a stranger's: so many bytes of it are taken and no more.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Protocol, cast

from docker.errors import NotFound as EngineNotFound

from converter.bootimage import LABEL
from converter.images.daemon import open_engine
from converter.images.view import JsonObject
from store.errors import FormatError, NotFound, UsageError

ENTRY_LIMIT = 1024
"""Files of one directory that are looked at."""
DIRECTORY_LIMIT = 32 << 20
"""Bytes of them all."""
_TIMEOUT_S = 60
_SPARE = 10 << 10
"""Bytes of a tar beside a file's."""


class _Api(Protocol):
    """What is used of docker-py's ``APIClient``, whose own types leave gaps."""

    def inspect_container(self, container: str) -> JsonObject: ...

    def containers(self, *, all: bool, filters: dict[str, str]) -> list[JsonObject]: ...  # noqa: A002  # docker-py's

    def get_archive(self, container: str, path: str) -> tuple[Iterator[bytes], JsonObject]: ...


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a boot image, as the engine describes it."""

    id: str
    name: str
    image: str
    """As it was named when the container was made."""
    image_id: str
    chunk_index: bytes
    """Digest of that of its image, as the image says."""
    is_running: bool
    started_s: float
    """Since 1970; 0.0 if it never was."""
    layers: frozenset[str]
    """Parts of the paths at which the engine has the container's own layer."""


@contextmanager
def open_containers() -> Iterator[Containers]:
    """Give the engine's containers.

    Raises:
        Unreachable, AccessDenied, RemoteError: the engine cannot be asked.

    """
    with open_engine("containers", _TIMEOUT_S) as engine:
        yield Containers(cast("_Api", engine))


class Containers:
    """The engine's containers; see `open_containers`, which translates errors."""

    def __init__(self, engine: _Api) -> None:
        self._engine = engine

    def find(self, name: str) -> Container:
        """Return a container by name or id.

        Raises:
            NotFound: there is none.
            UsageError: it is of an image that is no boot image.

        """
        try:
            return _container(self._engine.inspect_container(name))
        except EngineNotFound:
            raise NotFound(f"{name}: there is no such container; see `docker ps -a`") from None

    def iter_running(self) -> Iterator[Container]:
        """Yield the containers of boot images that run, by name."""
        found = self._engine.containers(all=False, filters={"label": f"{LABEL}chunk-index"})
        for entry in sorted(found, key=lambda entry: str(entry.get("Names"))):
            try:
                yield _container(self._engine.inspect_container(str(entry["Id"])))
            except EngineNotFound:
                continue  # it has ended meanwhile, and was removed

    def read_file(self, container: Container, path: str, limit: int) -> bytes | None:
        """Return a regular file of at most ``limit`` bytes; None where there is no such thing.

        Raises:
            FormatError: it is longer.

        """
        files = self._read_tar(container, path, limit + _SPARE)
        name = PurePosixPath(path).name
        if files is None or name not in files:
            return None
        if len(files[name]) > limit:
            raise FormatError(f"{container.name}:{path}", limit, "longer than it can be")
        return files[name]

    def read_directory(self, container: Container, path: str) -> dict[str, bytes] | None:
        """Return the regular files in a directory; None where there is no such directory.

        Raises:
            FormatError: there are more than `ENTRY_LIMIT`, or `DIRECTORY_LIMIT` in all.

        """
        files = self._read_tar(container, path, DIRECTORY_LIMIT)
        if files is None:
            return None
        base = PurePosixPath(path).name + "/"
        return {n[len(base) :]: data for n, data in files.items() if n.startswith(base)}

    def _read_tar(self, container: Container, path: str, limit: int) -> dict[str, bytes] | None:
        where = f"{container.name}:{path}"
        try:
            pieces, _ = self._engine.get_archive(container.id, path)
        except EngineNotFound:
            return None
        data = bytearray()
        for piece in pieces:
            data += piece
            if len(data) > limit:
                raise FormatError(where, limit, "more than can be there")
        files = {}
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
                for member in tar:
                    file = tar.extractfile(member) if member.isreg() else None
                    if file is not None:
                        files[member.name] = file.read()
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise FormatError(where, 0, f"not a tar from the engine: {error}") from error
        if len(files) > ENTRY_LIMIT:
            raise FormatError(where, 0, f"{len(files)} files")
        return files


def _container(found: JsonObject) -> Container:
    config = found.get("Config") or {}
    name = str(found.get("Name") or "").removeprefix("/")
    kind, _, digest = str((config.get("Labels") or {}).get(f"{LABEL}chunk-index")).partition(":")
    if kind != "blake3" or len(digest) != 64 or digest.strip("0123456789abcdef"):
        raise UsageError(f"{name}: not a container of a boot image, which `bootfs convert` makes")
    state = found.get("State") or {}
    layer = (found.get("GraphDriver") or {}).get("Data") or {}
    paths = [value for value in layer.values() if isinstance(value, str)]
    return Container(
        id=str(found["Id"]),
        name=name,
        image=str(config.get("Image") or ""),
        image_id=str(found.get("Image") or ""),
        chunk_index=bytes.fromhex(digest),
        is_running=bool(state.get("Running")),
        started_s=_seconds(str(state.get("StartedAt") or "")),
        layers=frozenset(part for path in paths if ":" not in path for part in path.split("/")),
    )


def _seconds(text: str) -> float:
    """Return a time of the engine in seconds since 1970; 0.0 for never."""
    # Nine digits behind the point, or fewer; Python takes six.
    whole, _, rest = text.removesuffix("Z").partition(".")
    try:
        moment = datetime.fromisoformat(f"{whole}+00:00").timestamp()
        return max(moment + (float(f"0.{rest}") if rest else 0.0), 0.0)
    except ValueError:
        return 0.0
