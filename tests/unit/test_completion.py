"""The rest of an image, in the background: all of it, at its pace, and after everybody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from boot import completion
from boot.completion import Completion
from boot.config import Settings
from store.errors import BootError, Unreachable
from store.format.bootconfig import BootConfig
from store.read.cache import Cache
from store.read.fetch import ChunkReader
from store.read.local import DirectorySource
from tests.support.stores import StoredImage, WatchedSource
from tests.support.trees import make_directory, make_file


@pytest.fixture
def image(tmp_path: Path) -> StoredImage:
    files = {f"f{n}": make_file(Random(n).randbytes(900_000)) for n in range(5)}
    return StoredImage(make_directory(**files), tmp_path / "s")


@pytest.fixture
def cache(image: StoredImage, tmp_path: Path) -> Iterator[Cache]:
    opened = image.open_cache(tmp_path / "c")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "QUIET_S", 0.2)
    monkeypatch.setattr(completion, "LOOK_S", 0.02)
    monkeypatch.setattr(completion, "REST_S", 0.1)


def watched(image: StoredImage) -> WatchedSource:
    return WatchedSource(DirectorySource(str(image.path)))


def test_everything_comes_each_chunk_once(image: StoredImage, cache: Cache) -> None:
    source = watched(image)
    reader = ChunkReader(image.index, source, cache, lambda _: None)
    reader.read([3])
    Completion(reader, 0, lambda _: None).run()
    assert all(map(cache.has, range(image.index.chunk_count)))
    # In long requests, which come one after the other.
    assert source.fetched.total() <= sum(image.index.stored_sizes) / completion.WINDOW + 3
    assert reader.counters.fetched_chunks == image.index.chunk_count


def test_it_keeps_to_a_rate(image: StoredImage, cache: Cache) -> None:
    reader = ChunkReader(image.index, watched(image), cache, lambda _: None)
    stored = sum(image.index.stored_sizes)
    begun = time.monotonic()
    Completion(reader, stored / 0.8, lambda _: None).run()
    assert time.monotonic() - begun >= 0.8


def test_it_waits_while_somebody_waits(image: StoredImage, cache: Cache) -> None:
    source = watched(image)
    reader = ChunkReader(image.index, source, cache, lambda _: None)
    ends = threading.Event()
    thread = threading.Thread(target=Completion(reader, 0, lambda _: None).run)
    wanted = list(range(image.index.chunk_count))
    thread.start()
    # Somebody reads on, with pauses shorter than what is quiet.
    for chunk in wanted[:8]:
        reader.read([chunk])
        assert source.fetched.total() == chunk + 1
        ends.wait(0.05)
    thread.join(30)
    assert all(map(cache.has, wanted))


def test_it_goes_on_when_the_store_is_back(image: StoredImage, cache: Cache) -> None:
    left = [3]

    def fail(*_: object) -> None:
        if left[0]:
            left[0] -= 1
            raise Unreachable("the store is away")

    source = WatchedSource(DirectorySource(str(image.path)), fail)
    said: list[str] = []
    reader = ChunkReader(image.index, source, cache, said.append)
    Completion(reader, 0, said.append).run()
    assert all(map(cache.has, range(image.index.chunk_count)))
    assert said == ["the store is away"] * 3


@pytest.mark.parametrize(
    ("text", "rate"),
    [("", None), ("off", None), ("on", 0), ("300", 300), ("2M", 2 << 20), ("500K", 500 << 10)],
)
def test_what_a_user_asks_for(text: str, rate: int | None) -> None:
    config = BootConfig(b"1", b"x", b"\1" * 32, [b"sh"], b"/store")
    assert Settings(config, {b"BOOTFS_COMPLETE": text.encode()}).complete == rate


@pytest.mark.parametrize("text", ["yes", "0", "-3", "2MB", "M", "1.5M", "on "])
def test_what_is_no_rate_is_refused(text: str) -> None:
    config = BootConfig(b"1", b"x", b"\1" * 32, [b"sh"], b"/store")
    with pytest.raises(BootError, match="give on, or bytes a second"):
        Settings(config, {b"BOOTFS_COMPLETE": text.encode()})
