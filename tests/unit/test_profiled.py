"""Files that a profile names: in which order, with what beside the hot pack, from where."""

from __future__ import annotations

import hashlib
import os
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from boot.lease import profiled as profiled_module
from boot.lease.aside import AsideFile
from boot.lease.filler import File
from boot.lease.profiled import Profiled, named_files
from store.errors import TimedOut
from store.format.chunkindex import BLOCK
from store.format.names import hot_pack_name, profiles_name
from store.format.profile import Profile
from store.read.fetch import ChunkReader
from store.read.hotpack import HotPack
from store.read.image import Bootstrap, ImageReader
from store.read.local import DirectorySource
from store.read.remote import HttpSource
from store.read.source import lookups
from store.write.profiles import encode_profiles, iter_hot_pack
from tests.support.scripted import ScriptedServer
from tests.support.stores import StoredImage, WatchedSource
from tests.support.trees import make_directory, make_file

IMAGE = b"\7" * 32
COMMAND = [b"serve"]
SIZE = 400_000
FILES = 6


class Gated(WatchedSource):
    """A watched store whose hot packs wait for ``gate`` in their middle."""

    def __init__(self, image: StoredImage) -> None:
        self.directory = DirectorySource(str(image.path))
        super().__init__(self.directory)
        self.gate = threading.Event()
        self.reached = threading.Event()

    def stream(self, name: str, limit: int, arrived: Callable[[memoryview], None]) -> int:
        def pass_on(piece: memoryview) -> None:
            if not name.startswith("hot/"):
                arrived(piece)
                return
            middle = len(piece) // 2
            arrived(piece[:middle])
            self.reached.set()
            assert self.gate.wait(20)
            arrived(piece[middle:])

        return self.directory.stream(name, limit, pass_on)


class Start:
    """A start of an image of `FILES` files, by a profile that reads some."""

    def __init__(
        self, image: StoredImage, directory: Path, chunks: list[int], reads: list[tuple[int, int]],
        *, has_pack: bool = True, ahead: int = 1 << 20, memory: int = 8 << 20,
    ) -> None:  # fmt: skip
        self.image = image
        self.whole = image.whole()
        self.profile = profile = Profile("default", COMMAND)
        profile.chunks = array("I", chunks)
        profile.reads = reads
        if has_pack:
            data = b"".join(iter_hot_pack(chunks, self.plain))
            profile.hot_pack, profile.hot_pack_size = hashlib.sha256(data).digest(), len(data)
            self._put(hot_pack_name(profile.hot_pack), data)
        self._put(profiles_name(IMAGE), encode_profiles(IMAGE, [profile]))
        self.source = Gated(image)
        self.said: list[str] = []
        self.chunks = ChunkReader(image.index, self.source, None, self.said.append, memory)
        fd = os.memfd_create("bootstrap")
        os.write(fd, image.plain_bootstrap)
        self.reader = ImageReader(Bootstrap(fd, image.index), self.chunks)
        self.hot = HotPack(
            self.chunks, self.source, None, IMAGE, ("", COMMAND), self.said.append, ahead
        )
        self.aside = AsideFile(str(directory), self.said.append)
        self.chunks.aside = self.aside
        self.profiled = Profiled(self.reader, self.hot, self.aside, ahead)
        self.thread = threading.Thread(target=self.hot.run)
        starts = sorted(image.index.data_start + offset for offset in image.extents.values())
        self.files = [File(-1, n, start, SIZE, False) for n, start in enumerate(starts)]
        """In the order of image.erofs."""

    def _put(self, name: str, data: bytes) -> None:
        path = self.image.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    def plain(self, chunk: int) -> bytes:
        """Return a chunk's plain bytes."""
        index = self.image.index
        start = index.data_start + index.starts[list(index.place_chunks).index(chunk)]
        return self.whole[start : start + index.plain_sizes[chunk]]

    def read(self, file: File) -> bytes:
        """Return a file's contents."""
        return b"".join(bytes(piece) for piece in self.reader.read(file.offset, file.size))

    def expected(self, file: File) -> bytes:
        """Return what they should be."""
        return self.whole[file.offset : file.offset + file.size]


@pytest.fixture
def image(tmp_path: Path) -> StoredImage:
    """Give an image of files, each of many chunks, none of them shared."""
    files = {f"f{n}": make_file(Random(n).randbytes(SIZE)) for n in range(FILES)}
    return StoredImage(make_directory(**files), tmp_path / "s")


Begin = Callable[..., Start]


@pytest.fixture
def begin(image: StoredImage, tmp_path: Path) -> Iterator[Begin]:
    """Give what makes a start whose reads are whole files, by their places."""
    started: list[Start] = []

    def make(order: list[int], chunks: Callable[[list[int]], list[int]], **more: Any) -> Start:
        start = image.index.data_start
        places = sorted(start + offset for offset in image.extents.values())
        reads = [(places[n] // BLOCK, -(-SIZE // BLOCK)) for n in order]
        fd = os.memfd_create("bootstrap")
        reader = ImageReader(Bootstrap(fd, image.index), ChunkReader(image.index, DirectorySource(
            str(image.path)), None, lambda _: None))  # fmt: skip
        used = [c for n in order for c in reader.chunks_of(places[n], SIZE)]
        reader.close()
        chosen = chunks(list(dict.fromkeys(used)))
        started.append(Start(image, tmp_path, chosen, reads, **more))
        return started[-1]

    yield make
    for one in started:
        one.source.gate.set()
        if one.thread.ident is not None:
            one.thread.join(20)
        one.profiled.close()
        one.reader.close()


def test_files_come_in_the_order_of_use_and_nothing_else_is_fetched(begin: Begin) -> None:
    # Chunks in memory would be dropped again: a file is filled later than it comes.
    start = begin([4, 0, 2], lambda chunks: chunks, memory=100_000)
    start.source.gate.set()
    start.thread.start()
    start.thread.join(20)
    found = []
    for file in start.profiled.iter_files(start.files):
        found.append(file.row)
        assert start.read(file) == start.expected(file)
    assert found == [4, 0, 2]
    assert not start.source.fetched
    assert not start.said


def test_what_the_hot_pack_lacks_is_fetched_beside_it_and_together(begin: Begin) -> None:
    # Of each file some pages: half of the chunks are in no hot pack.
    start = begin([3, 1], lambda chunks: [c for n, c in enumerate(chunks) if n % 8 < 4])
    start.thread.start()
    assert start.source.reached.wait(20)
    files = start.profiled.iter_files(start.files)
    first: list[File] = []
    taker = threading.Thread(target=lambda: first.extend(files))
    taker.start()
    while not start.source.fetched:
        assert taker.is_alive()
    assert not first or first == [start.files[3]]
    start.source.gate.set()
    taker.join(20)
    assert [file.row for file in first] == [3, 1]
    before = start.source.fetched.total()
    for file in first:
        assert start.read(file) == start.expected(file)
    assert start.source.fetched.total() == before
    lacking = start.chunks.counters.fetched_chunks - len(start.profile.chunks)
    assert before <= lacking // 2


def test_no_more_is_asked_for_ahead_than_there_is_room(begin: Begin) -> None:
    start = begin([0, 1, 2, 3, 4, 5], lambda _: [], has_pack=False, ahead=500_000)
    start.thread.start()
    start.thread.join(20)
    sizes = []
    index = start.image.index
    for file in start.profiled.iter_files(start.files):
        assert start.chunks.wait_for(list(range(index.chunk_count)), 20)
        here = sum(
            index.plain_sizes[c] for c in range(index.chunk_count) if start.chunks.has_here(c)
        )
        file.begun = True
        sizes.append(here - SIZE * len(sizes))
    assert len(sizes) == FILES
    assert max(sizes) <= 500_000 + SIZE + 200_000
    assert start.chunks.counters.fetched_chunks == index.chunk_count


def test_a_profile_without_a_hot_pack_orders_and_begins(begin: Begin) -> None:
    start = begin([5, 1], lambda chunks: chunks, has_pack=False, ahead=150_000)
    start.thread.start()
    start.thread.join(20)
    index = start.image.index
    assert start.chunks.wait_for(list(range(index.chunk_count)), 20)
    # The first of it, while the tree is made.
    assert 0 < start.chunks.counters.fetched_chunks < len(index.plain_sizes) // FILES
    found = []
    for file in start.profiled.iter_files(start.files):
        file.begun = True
        found.append(file.row)
    assert found == [5, 1]


def test_what_comes_no_more_is_not_waited_for(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiled_module, "LOOK_S", 0.01)
    monkeypatch.setattr(profiled_module, "SILENT_S", 0.1)
    start = begin([4, 0, 2], lambda chunks: chunks)
    start.thread.start()
    assert start.source.reached.wait(20)
    assert [file.row for file in start.profiled.iter_files(start.files)] in ([4], [])


def test_a_start_without_a_profile_names_nothing(begin: Begin) -> None:
    start = begin([1], lambda chunks: chunks)
    (start.image.path / profiles_name(IMAGE)).unlink()
    start.thread.start()
    assert list(start.profiled.iter_files(start.files)) == []
    assert not start.said


def test_reads_outside_the_files_name_none(begin: Begin) -> None:
    start = begin([2], lambda chunks: chunks)
    profile = Profile("default", COMMAND)
    first = start.image.index.data_start // BLOCK
    profile.reads = [(0, 1), (first - 1, 1), (1 << 31, 5), (start.files[1].offset // BLOCK, 1)]
    assert named_files(profile, start.image.index, start.files) == [start.files[1]]
    assert named_files(profile, start.image.index, []) == []


def test_what_lies_aside_is_verified_and_its_loss_costs_a_fetch(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = begin([4], lambda chunks: chunks, memory=1)
    start.source.gate.set()
    start.thread.start()
    start.thread.join(20)
    monkeypatch.setattr(start.aside, "get", lambda chunk: bytes(len(start.plain(chunk))))
    assert start.read(start.files[4]) == start.expected(start.files[4])
    assert start.source.fetched
    monkeypatch.undo()
    start.profiled.close()
    assert not any(map(start.chunks.has_here, range(start.image.index.chunk_count - 1)))
    assert start.read(start.files[4]) == start.expected(start.files[4])


def test_a_full_disk_leaves_the_rest_to_memory(tmp_path: Path) -> None:
    said: list[str] = []
    aside = AsideFile(str(tmp_path), said.append)
    assert list(tmp_path.iterdir()) == []
    assert aside.put(1, b"one") and aside.get(1) == b"one"
    full = os.open("/dev/full", os.O_RDWR)
    own, aside._fd = aside._fd, full
    assert not aside.put(2, b"two") and not aside.put(3, b"three")
    assert len(said) == 1 and "No space left" in said[0]
    aside._fd = own
    assert not aside.has(2) and aside.get(2) is None and aside.get(1) == b"one"
    aside.close()
    aside.close()
    os.close(full)
    assert aside.get(1) is None and not aside.put(4, b"")


def test_names_wait_until_they_may_be_looked_up() -> None:
    answer = (
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/1\r\n\r\nx"
    )
    with ScriptedServer(("request", answer)) as server:
        lookups.acquire()
        try:
            named = HttpSource(f"http://localhost:{server.port}", 0.2)
            with closing(named), pytest.raises(TimedOut, match="no name can be looked up"):
                named.fetch("name", 0, 1)
            # An address is no name.
            with closing(HttpSource(f"http://127.0.0.1:{server.port}", 10)) as source:
                assert source.fetch("name", 0, 1) == b"x"
        finally:
            lookups.release()
