"""Memory and descriptors of a daemon that lives long."""

from __future__ import annotations

import dataclasses
import gc
import os
import socket
import threading
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from boot.fuse import IN_HEADER, OUT_HEADER, READ, READ_IN, REQUEST_SIZE, OneFile
from converter.tree import Content, Node, Segment
from store.read.fetch import ChunkReader
from store.read.remote import HttpSource
from tests.soak.extent import IMAGE_SIZE, IS_LONG
from tests.support.stores import StoredImage
from tests.support.trees import MemoryBlob, make_directory
from tests.system.test_daemon_death import container_init, daemon_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.converted import Converted
    from tests.support.engine import Engine
    from tests.support.servers import Nginx

pytestmark = pytest.mark.system

READS = 1_000_000 if IS_LONG else 15_000
WARM_UP = 200_000 if IS_LONG else 5_000
"""Reads after which all that is to be kept is kept."""
RECONNECTS = 10_000 if IS_LONG else 200
RESIDENT_LIMIT = 40 << 20
GROWTH_LIMIT = 1 << 20
"""What an allocator may do by itself; an object a request would be 100 MB."""
PIECE = 128 << 10
"""Bytes of one read, as of the kernel's read-ahead."""


def resident(pid: int, what: str = "VmRSS") -> int:
    """Give the bytes of memory that a process has."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{what}:"))


def descriptors(pid: int) -> int:
    """Count the open files of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def image_of_one_file(directory: Path, size: int, seed: int = 1) -> StoredImage:
    """Give an image in a store, with one file that does not shrink."""
    content = Content(size, (Segment(0, size, MemoryBlob(Random(seed).randbytes(size)), 0),))
    return StoredImage(make_directory(big=Node(0o100644, content=content)), directory)


class Kernel:
    """The other end of a daemon's device: asks for reads and checks the answers."""

    def __init__(self, whole: bytes) -> None:
        self._whole = whole
        self._device, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._device, self._ours):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._unique = 0

    def serve(self, read: Callable[[int, int], list[bytes | memoryview]]) -> int:
        """Serve the image in a new process; give its number."""
        gc.collect()
        pid = os.fork()
        if pid == 0:
            self._ours.close()
            file = OneFile(self._device.fileno(), b"image.erofs", len(self._whole), read, print)
            try:
                file.serve()
            finally:
                os._exit(1)
        self._device.close()
        return pid

    def close(self) -> None:
        """Close this end."""
        self._ours.close()

    def read(self, offset: int, size: int) -> None:
        """Ask for bytes and compare them."""
        self._unique += 1
        asked = READ_IN.pack(0, offset, size, 0, 0, 0, 0)
        length = IN_HEADER.size + len(asked)
        assert length <= REQUEST_SIZE
        head = IN_HEADER.pack(length, READ, self._unique, 2, 0, 0, 0, 0, 0)
        self._ours.send(head + asked)
        answer = self._ours.recv(OUT_HEADER.size + size)
        assert OUT_HEADER.unpack_from(answer) == (len(answer), 0, self._unique)
        assert answer[OUT_HEADER.size :] == self._whole[offset : offset + size]


def test_a_daemon_does_not_grow_with_the_reads_it_answers(tmp_path: Path) -> None:
    image = image_of_one_file(tmp_path / "store", 24 << 20)
    whole = image.whole()
    cache = image.open_cache(tmp_path / "cache")
    reader = image.open_reader(cache=cache)
    kernel = Kernel(whole)
    random = Random(2)
    pid = kernel.serve(reader.read)
    try:
        start = image.index.data_start
        ends = range(start, len(whole) - PIECE, 4096)
        sizes = [4096, 4096, 4096, 16384, PIECE]
        for _ in range(WARM_UP):
            kernel.read(random.choice(ends), random.choice(sizes))
        before, files = resident(pid), descriptors(pid)
        for _ in range(READS):
            kernel.read(random.choice(ends), random.choice(sizes))
        grown = resident(pid) - before
        print(f"{READS} reads: {before} bytes resident before, {grown:+} after")
        assert grown <= GROWTH_LIMIT
        assert descriptors(pid) == files
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        kernel.close()
        cache.close()
        reader.bootstrap.close()


def test_a_reader_does_not_keep_connections_that_the_server_closes(
    tmp_path: Path, serve: Callable[..., Nginx]
) -> None:
    image = image_of_one_file(tmp_path / "store", 16 << 20)
    server = serve(tmp_path / "store", extra="keepalive_timeout 0;")
    source = HttpSource(server.url.rstrip("/"), 30)
    chunks = ChunkReader(image.index, source, None, print, memory_limit=0)
    random = Random(3)
    count = image.index.chunk_count

    def fetch() -> None:
        chunk = random.randrange(count)
        assert len(chunks.read([chunk])[chunk]) == image.index.plain_sizes[chunk]

    for _ in range(20):
        fetch()
    chunks.wait_until_landed()
    before, connections = descriptors(os.getpid()), len(server.requests())
    memory = resident(os.getpid())
    for _ in range(RECONNECTS):
        fetch()
    chunks.wait_until_landed()
    made = len(server.requests()) - connections
    after, threads = descriptors(os.getpid()), threading.active_count()
    grown = resident(os.getpid()) - memory
    print(f"{made} connections: {after - before:+} descriptors, {grown:+} bytes, {threads} threads")
    # Now and then a chunk is on its way already, behind one that was wanted before.
    assert made >= RECONNECTS * 9 // 10
    assert after <= before + 1
    source.close()


@pytest.mark.parametrize("mode", ["erofs", "fuse"])
@pytest.mark.parametrize("memory", [None, "64m"])
def test_a_daemon_stays_small_while_all_is_read_in_random_order(
    engine: Engine, big_file: tuple[Converted, Path], mode: str, memory: str | None
) -> None:
    converted, big = big_file
    image = dataclasses.replace(converted, mode=mode)
    options = ("--memory", memory, "--memory-swap", memory) if memory else ()
    container = image.start(engine, "sleep", "100000", options=options)
    pid = daemon_of(container)
    root = Path(f"/proc/{container_init(container)}/root")
    places = list(range(0, IMAGE_SIZE, PIECE))
    Random(4).shuffle(places)
    with (root / "big").open("rb", buffering=0) as booted, big.open("rb") as source:
        os.posix_fadvise(booted.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for place in places:
            expected = os.pread(source.fileno(), PIECE, place)
            assert os.pread(booted.fileno(), PIECE, place) == expected, place
    most = resident(pid, "VmHWM")
    print(f"mode {mode}: {resident(pid)} bytes resident, {most} at most")
    assert daemon_of(container) == pid
    if mode == "erofs":
        assert most <= RESIDENT_LIMIT
