"""Asking a container how it does: the one exchange behind ``bootfs status`` and ``report``.

Reading the directory of its status file is the question (boot/status.py): the kernel tells PID 1
of it, which writes the file anew.  So it is read until another one is there.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass
from itertools import compress

from converter.containers import Container, Containers
from converter.statusfile import NS, StatusFile, parse_status
from store.errors import FormatError, NotFound
from store.format.names import CACHE_LAYOUT
from store.format.packfile import CHUNK_LIMIT
from store.format.status import FILE_LIMIT

DIRECTORY = "/.bootfs/rw/status"
CACHE = f"/.bootfs/cache/{CACHE_LAYOUT}"
ANSWER_S = 2.0
"""For so long is a new file waited for; PID 1 writes one in a millisecond."""
PAUSE_S = 0.02
ID = 64
"""Digits of an engine's id."""
CHUNKS_LIMIT = 1 << 22
"""What is cached of an image is told up to so many chunks, some 250 GB."""


@dataclass(frozen=True, slots=True)
class Cached:
    """How much of an image a cache claims to hold."""

    chunks: int
    plain: int
    whole: int
    """Plain bytes of all chunks."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A container and what it has said."""

    container: Container
    status: StatusFile
    is_fresh: bool
    """It runs and has answered, or it has ended; else this is what it said before."""
    cached: Cached | None
    """None where it has no cache, or none that could be read."""


def ask(containers: Containers, container: Container) -> Seen:
    """Return what a container says of itself now, or said when it ended.

    Raises:
        NotFound: it has said nothing since it was started.
        FormatError: it says what cannot be.
        BootfsError: the engine cannot be asked.

    """
    data = _read(containers, container)
    is_fresh = not container.is_running
    until = time.monotonic() + ANSWER_S
    while not is_fresh and time.monotonic() < until:
        time.sleep(PAUSE_S)
        before, data = data, _read(containers, container)
        # That which was there may be of the container's start before this one, or not PID 1's.
        is_fresh = data is not None and data != before and _is_status(data)
    status = None if data is None else parse_status(data)
    if status is None or status.written_ns / NS < container.started_s:
        raise NotFound(
            f"{container.name}: there is no status of this start; "
            f"is it booting still, or is nothing mounted at {DIRECTORY.rpartition('/')[0]}?"
        )
    if status.chunk_index != container.chunk_index:
        raise FormatError("status file", 32, f"{container.name} is of another image")
    return Seen(container, status, is_fresh, _cached(containers, status, container))


def _read(containers: Containers, container: Container) -> bytes | None:
    """Return the container's file; to read it, or else its directory, is the question."""
    for name in sorted(container.layers):
        # By name where the engine tells it: others may have left any number of files there.
        if len(name) == ID and not name.strip("0123456789abcdef"):
            data = containers.read_file(container, f"{DIRECTORY}/{name}", FILE_LIMIT)
            if data is not None:
                return data
    files = containers.read_directory(container, DIRECTORY)
    own = _own_name(container, list(files or ()))
    return files[own] if files and own is not None else None


def _is_status(data: bytes) -> bool:
    try:
        parse_status(data)
    except FormatError:
        return False
    return True


def _own_name(container: Container, names: list[str]) -> str | None:
    """Return which of the files of a volume, which containers may share, is this container's."""
    written = [name for name in names if not name.endswith(".new")]
    for name in written:
        # What `boot.root.container_name` returns: the engine's own layer, or an id in front.
        if name in container.layers or name.partition(".")[0] == container.id:
            return name
    # An engine that does not say where its layers are.
    return written[0] if len(written) == 1 and not container.layers else None


def _cached(containers: Containers, status: StatusFile, container: Container) -> Cached | None:
    chunks = status.numbers["chunks"]
    if chunks > CHUNKS_LIMIT:
        return None
    place = f"{CACHE}/{container.chunk_index.hex()}"
    present = containers.read_file(container, f"{place}/present", chunks)
    encoded = containers.read_file(container, f"{place}/sizes", 4 * chunks)
    if present is None or encoded is None or len(encoded) != 4 * chunks:
        return None
    sizes = array("I", encoded)
    if any(size > CHUNK_LIMIT for size in sizes):
        raise FormatError(f"{container.name}:{place}/sizes", 0, "a chunk larger than any")
    return Cached(len(present) - present.count(0), sum(compress(sizes, present)), sum(sizes))
