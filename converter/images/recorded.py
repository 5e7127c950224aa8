"""Traces that containers of the local engine recorded, through its API."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, cast

from docker.errors import NotFound as EngineNotFound

from converter.images.daemon import open_engine
from converter.images.view import JsonObject
from converter.traces import Found, parse_trace_of
from store.errors import FormatError, IntegrityError, NotFound, RemoteProtocolError
from store.format.names import CACHE_LAYOUT
from store.format.trace import LIMIT
from store.write.tracestore import FILE_NAME

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class _Api(Protocol):
    """What is used of docker-py's ``APIClient``, whose own types leave gaps."""

    def inspect_container(self, container: str) -> JsonObject: ...

    def get_archive(self, container: str, path: str) -> tuple[Iterator[bytes], JsonObject]: ...


_NAME = re.compile(f"(?:.*/)?({FILE_NAME})")


def read_container_traces(
    container: str, image: bytes, report: Callable[[str], None]
) -> list[Found]:
    """Return what a container of the engine recorded, and who shares its cache, oldest first.

    Whether it runs or has ended.  Of the cache all that is of the image is read: the engine
    gives directories whole.  A trace that cannot be read is left out, and ``report`` told:
    a daemon that was killed may have begun it only.

    Raises:
        NotFound: there is no such container, or no trace of the image in it.
        Unreachable, AccessDenied, RemoteError: the engine cannot be asked.

    """
    directory = f"/.bootfs/cache/{CACHE_LAYOUT}/{image.hex()}"
    name = f"container {container}"
    traces: list[Found] = []
    with open_engine(name) as opened:
        engine = cast("_Api", opened)
        try:
            engine.inspect_container(container)
        except EngineNotFound:
            raise NotFound(
                f"{name}: the engine has no such container; see `docker ps -a`"
            ) from None
        try:
            pieces, _ = engine.get_archive(container, directory)
        except EngineNotFound:
            pieces = iter(())
        else:
            try:
                for member, data in _iter_members(pieces):
                    try:
                        where = f"{name}: {member}"
                        traces.append(Found(where, parse_trace_of(data, image, where)))
                    except (FormatError, IntegrityError) as error:
                        report(f"left: {error}")
            except (tarfile.TarError, EOFError) as error:
                raise RemoteProtocolError(
                    f"{name}: what the engine gives of {directory} is no tar: {error}"
                ) from None
    if not traces:
        raise NotFound(
            f"{name}: no trace of this image, blake3:{image.hex()}; start it with BOOTFS_RECORD=1"
        )
    return sorted(traces, key=lambda found: found.trace.begun_s)


def _iter_members(pieces: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the names and bytes of the traces in a tar."""
    with tarfile.open(fileobj=io.BufferedReader(_Pieces(pieces)), mode="r|") as tar:
        for member in tar:
            found = _NAME.fullmatch(member.name)
            if found is None or not member.isreg():
                continue
            file = tar.extractfile(member)
            if file is not None:
                yield found[1], file.read(LIMIT + 1)


class _Pieces(io.RawIOBase):
    """What `tarfile` reads a stream from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """Whether it is for reading."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` from its start with what there is; return how much, 0 at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        room = memoryview(buffer).cast("B")
        size = min(len(room), len(self._left))
        room[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
