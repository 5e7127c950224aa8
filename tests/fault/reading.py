"""A container that reads files when it is told to, behind a relay that does wrong on demand."""

from __future__ import annotations

import os
import select
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.support.engine import BOOT_OPTIONS
from tests.support.relay import NameServer, Relay
from tests.support.trees import make_directory, make_file

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from converter.tree import Node
    from tests.fault.scenarios import Scenario
    from tests.support.engine import Engine

MODES = ("erofs", "fuse", "lease", "erofs, mirrors")
START_S = 120.0
GROUPS = 32
"""Directories, so that each fault of a container finds files that nobody has read."""
SIZES = {"before": 40_000, "during": 700_000, "after": 300_000}
LATER = 5
"""Files of the first group for what is read when a mirror is to be returned to."""
LATER_SIZE = 400_000
ORDER = (*(f"later{n}" for n in reversed(range(LATER))), "after", "during", "before")
"""Of directories, with one file each: what is read later lies before what is read earlier, so that
nothing comes unasked before its turn."""


def contents_of(path: str) -> bytes:
    """Return the bytes of a file of the image; they cannot be compressed."""
    name = path.rpartition("/")[2]
    return Random(path).randbytes(SIZES.get(name, LATER_SIZE))


def names_of(group: int) -> list[str]:
    """Return the names of a group's files."""
    return [*SIZES, *(f"later{n}" for n in range(LATER) if not group)]


def path_of(group: int, name: str) -> str:
    """Return the path of a group's file; groups with lower numbers are read first."""
    return f"/{GROUPS - 1 - group % GROUPS:02}{ORDER.index(name)}/{name}"


def all_paths() -> list[str]:
    """Return the paths of all files of the image."""
    return [path_of(group, name) for group in range(GROUPS) for name in names_of(group)]


def make_tree() -> Node:
    """Return the tree of the image."""
    tree = make_directory()
    for path in sorted(all_paths()):
        _, directory, name = path.split("/")
        content = make_file(contents_of(path))
        tree.children[directory.encode()] = make_directory(**{name: content})
    return tree


@dataclass(frozen=True)
class Answer:
    """What came of a read."""

    path: str
    errno: int
    data: bytes
    seconds: float
    has_ended: bool = False
    """The container did, before it answered."""
    hangs: bool = False
    """One of its calls took longer than the limit."""

    @property
    def is_right(self) -> bool:
        """Whether all bytes are those of the source."""
        return not (self.errno or self.has_ended or self.hangs) and not self.is_wrong

    @property
    def is_wrong(self) -> bool:
        """Whether the reader was given other bytes."""
        given = not (self.errno or self.has_ended or (self.hangs and not self.data))
        return given and self.data != contents_of(self.path)


@dataclass(frozen=True)
class Place:
    """What all containers of a run share."""

    image: str
    program: Path
    """The reader, compiled."""
    upstream: tuple[str, int]
    """The server of the store itself."""
    address: str
    """Of this machine, for containers."""
    trusted: ssl.SSLContext
    untrusted: ssl.SSLContext
    limit_s: float
    """BOOTFS_READ_LIMIT."""

    @property
    def hang_s(self) -> float:
        """How long a call may take at most: the limit, and what a busy machine takes."""
        return self.limit_s + 8

    @property
    def file_s(self) -> float:
        """How long a file may take at most, where each of its calls brings something."""
        return 6 * self.hang_s


class ReadingContainer:
    """A container with a relay of its own; a context manager."""

    def __init__(
        self, place: Place, engine: Engine, mode: str, mirrored: bool, scenario: Scenario, log: Path
    ) -> None:
        """Start it.  `log` is the file for what it writes to standard error."""
        self.group = 0
        self.is_lost = False
        """A read was not answered: what comes next may be its answer."""
        self.log = log
        self._place = place
        self._stack = ExitStack()
        self._number = int.from_bytes(os.urandom(2), "big")
        self.name_server: NameServer | None = None
        try:
            url, network = self._open_network(scenario, is_held=mode == "lease")
            urls = f"{url}|http://{place.upstream[0]}:{place.upstream[1]}" if mirrored else url
            mount_options = BOOT_OPTIONS if mode != "lease" else ()
            options = (
                *(*mount_options, *network, "-v", f"{place.program}:/reader:ro"),
                *("-e", f"BLOB_STORE={urls}", "-e", f"BOOTFS_MODE={mode}"),
                *("-e", f"BOOTFS_READ_LIMIT={place.limit_s:g}"),
                # What has come unasked meets no fault when it is read.
                *("-e", "BOOTFS_WHOLE=off"),
            )
            errors = self._stack.enter_context(log.open("wb"))
            self.process = engine.attach(place.image, "/reader", options=options, errors=errors)
            self._stack.callback(self._end)
            if self._read_line(time.monotonic() + START_S) != b"up":
                raise AssertionError(f"the container does not start: {log.read_text()}")
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """End container and relay."""
        self._stack.close()

    def _open_network(self, scenario: Scenario, is_held: bool) -> tuple[str, tuple[str, ...]]:
        """Start relay and name server; return the store's URL and the options of the network."""
        place = self._place
        context = place.trusted if scenario.tls else None
        if not scenario.name_server:
            self.relay = self._stack.enter_context(
                Relay(place.upstream, place.address, context, is_held)
            )
            return self.relay.url, ()
        self.relay = self._stack.enter_context(Relay(place.upstream, "127.0.0.1", None, is_held))
        own = f"127.53.{self._number >> 8}.{self._number & 255 or 1}"
        self.name_server = self._stack.enter_context(NameServer(own, "127.0.0.1"))
        return f"http://store.test:{self.relay.port}", ("--network", "host", "--dns", own)

    def read(self, path: str) -> Answer:
        """Have a file read, and wait for what comes of it."""
        begun = time.monotonic()
        deadline = begun + self._place.file_s
        assert self.process.stdin
        self.process.stdin.write(f"{path}\n".encode())
        try:
            line = self._read_line(deadline)
            if not line:
                return Answer(path, 0, b"", time.monotonic() - begun, has_ended=True)
            errno, size, longest_ms = map(int, line.split())
            data = self._read(size, deadline)
        except TimeoutError:
            self.is_lost = True
            return Answer(path, 0, b"", time.monotonic() - begun, hangs=True)
        hangs = longest_ms > self._place.hang_s * 1000
        seconds = time.monotonic() - begun
        return Answer(path, errno, data, seconds, has_ended=len(data) < size, hangs=hangs)

    def exit_code(self) -> int:
        """Wait until the container has ended; return its exit code."""
        return self.process.wait(60)

    def lines(self) -> list[str]:
        """Return what the container has written to standard error, but for the engine's own."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if not line.startswith("WARNING: ")]

    def _read_line(self, deadline: float) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            found = self._read(1, deadline)
            if not found:
                return b""
            line += found
        return line[:-1]

    def _read(self, size: int, deadline: float) -> bytes:
        """Read so many bytes; fewer where the container ends."""
        assert self.process.stdout
        out = self.process.stdout.fileno()
        data = bytearray()
        while len(data) < size:
            ready, _, _ = select.select([out], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise TimeoutError
            found = os.read(out, min(size - len(data), 1 << 16))
            if not found:
                break
            data += found
        return bytes(data)

    def _end(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            # The engine removes the container when the test ends.
            self.process.kill()
            self.process.wait()
