"""Lazy or whole: when all of an image is brought beside a start, and what that does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from boot import whole
from boot.config import Settings
from boot.whole import SHARE, TRIPS, Whole, is_whole_sooner
from store.errors import BootError, Unreachable
from store.format.bootconfig import BootConfig
from store.read.cache import Cache
from store.read.fetch import ChunkReader
from store.read.link import PACE, Link
from store.read.local import DirectorySource
from tests.support.stores import StoredImage, WatchedSource
from tests.support.trees import make_directory, make_file

MEGABYTE = 1_000_000


@pytest.fixture
def image(tmp_path: Path) -> StoredImage:
    files = {f"f{n}": make_file(Random(n).randbytes(900_000)) for n in range(8)}
    return StoredImage(make_directory(**files), tmp_path / "s")


@pytest.fixture
def cache(image: StoredImage, tmp_path: Path) -> Iterator[Cache]:
    opened = image.open_cache(tmp_path / "c")
    yield opened
    opened.close()


def watched(image: StoredImage) -> WatchedSource:
    return WatchedSource(DirectorySource(str(image.path)))


def link_of(rate: float, round_trip_s: float) -> Link:
    link = Link()
    link.answered(round_trip_s)
    if rate:
        link.brought(1 << 20, (1 << 20) / rate)
    return link


@pytest.mark.parametrize(
    ("left_mb", "waited_s", "rate_mb", "round_trip_s", "expected"),
    [
        # 100 Mbit/s and 10 ms: only what is small.
        (100, 0.0, 12.5, 0.01, False),
        (7, 0.0, 12.5, 0.01, True),
        # 200 ms: twice of what forty round trips' time brings.
        (150, 0.0, 12.5, 0.2, True),
        (280, 0.0, 12.5, 0.2, False),
        # Whoever has waited for long goes on to.
        (280, 14.8, 12.5, 0.2, True),
        (100, 5.2, 12.5, 0.01, False),
        (100, 5.3, 12.5, 0.01, True),
        # However fast the link, a processor is not.
        (100, 1.2, 1e6, 0.0001, False),
        (100, 1.3, 1e6, 0.0001, True),
        # Not known how fast it is.
        (1, 100.0, 0, 0.2, False),
    ],
)
def test_prediction(
    left_mb: float, waited_s: float, rate_mb: float, round_trip_s: float, expected: bool
) -> None:
    link = link_of(rate_mb * MEGABYTE, round_trip_s)
    assert is_whole_sooner(int(left_mb * MEGABYTE), waited_s, link) is expected


def test_no_more_is_waited_in_vain_than_a_share_of_what_the_whole_takes() -> None:
    link = link_of(10 * MEGABYTE, 0.001)
    whole_s = 200 * MEGABYTE / (10 * MEGABYTE) + 200 * MEGABYTE / PACE
    assert TRIPS * link.round_trip_s < SHARE * whole_s
    assert not is_whole_sooner(200 * MEGABYTE, 0.99 * SHARE * whole_s, link)
    assert is_whole_sooner(200 * MEGABYTE, SHARE * whole_s, link)


def wait_until_all_is_here(reader: ChunkReader) -> None:
    deadline = time.monotonic() + 30
    while not all(map(reader.has_here, range(reader.index.chunk_count))):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_everything_comes_each_chunk_once(image: StoredImage, cache: Cache) -> None:
    source = watched(image)
    reader = ChunkReader(image.index, source, cache, lambda _: None)
    Whole(reader, None, lambda _: None).begin()
    for chunk in range(0, image.index.chunk_count, 3):
        reader.read([chunk])
    wait_until_all_is_here(reader)
    assert reader.counters.fetched_chunks == image.index.chunk_count


def test_it_begins_when_round_trips_have_been_waited_for_long(
    image: StoredImage, cache: Cache
) -> None:
    reader = ChunkReader(image.index, watched(image), cache, lambda _: None)
    decision = Whole(reader, None, lambda _: None)
    trip_s = 0.03
    reader.link.answered(trip_s)
    reader.link.brought(MEGABYTE, 1.0)
    decision.decide()
    stored = sum(image.index.stored_sizes)
    trips = SHARE * (stored / MEGABYTE + stored / PACE) / trip_s
    assert trips > TRIPS
    for trip in range(int(trips)):
        assert reader.waited
        # What is waited for beyond a round trip would be waited for in either way.
        reader.waited(trip, trip + 0.9)
        # Who waited at the same time adds nothing.
        reader.waited(trip, trip + 0.9)
    assert reader.waited
    assert not reader.counters.fetched_chunks
    reader.waited(trips, trips + 0.9)
    assert reader.waited is None
    wait_until_all_is_here(reader)


def test_a_start_that_is_over_stays_lazy(image: StoredImage, cache: Cache) -> None:
    reader = ChunkReader(image.index, watched(image), cache, lambda _: None)
    reader.link.answered(0.001)
    reader.link.brought(MEGABYTE, 1.0)
    Whole(reader, None, lambda _: None).decide()
    assert reader.waited
    reader.waited(10.0, 10.1)
    reader.waited(10.1 + whole.OVER_S + 0.1, 1000.0)
    assert reader.waited is None
    assert not reader.counters.fetched_chunks


def test_readers_tell_how_long_they_waited(image: StoredImage, cache: Cache) -> None:
    gate = threading.Event()
    source = WatchedSource(DirectorySource(str(image.path)), lambda *_: gate.wait(10) and None)
    reader = ChunkReader(image.index, source, cache, lambda _: None)
    waits: list[tuple[float, float]] = []
    reader.waited = lambda begun_s, ended_s: waits.append((begun_s, ended_s))
    threading.Timer(0.2, gate.set).start()
    reader.read([0])
    reader.read([0])
    ((begun_s, ended_s),) = waits
    assert ended_s - begun_s >= 0.15


def test_a_store_that_fails_ends_it_with_a_line(image: StoredImage, cache: Cache) -> None:
    def fail(*_: object) -> None:
        raise Unreachable("the store is away")

    said: list[str] = []
    source = WatchedSource(DirectorySource(str(image.path)), fail)
    reader = ChunkReader(image.index, source, cache, lambda _: None)
    Whole(reader, None, said.append).run()
    assert said == ["fetching the whole image failed: going on lazily"]
    with pytest.raises(Unreachable):
        reader.read([0])


def test_a_fault_of_ours_ends_it_with_a_line(
    image: StoredImage, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    reader = ChunkReader(image.index, watched(image), cache, lambda _: None)
    monkeypatch.setattr(reader, "want", lambda _: 1 // 0)
    Whole(reader, None, said.append).run()
    (line,) = said
    assert line.startswith("fetching the whole image failed (ZeroDivisionError(")
    reader.read([0])


@pytest.mark.parametrize("text", ["on", "off", "auto", ""])
def test_setting(text: str) -> None:
    config = BootConfig(b"1", b"x", b"\1" * 32, [b"sh"], b"/store")
    assert Settings(config, {b"BOOTFS_WHOLE": text.encode()}).whole == (text or "auto")


def test_a_setting_that_is_none() -> None:
    config = BootConfig(b"1", b"x", b"\1" * 32, [b"sh"], b"/store")
    with pytest.raises(BootError, match="BOOTFS_WHOLE is 'yes'; give one of auto, on, off"):
        Settings(config, {b"BOOTFS_WHOLE": b"yes"})
