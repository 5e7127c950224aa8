"""What is advised is at hand, in whole pages, once, and costs no fetch."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from boot.readahead import AHEAD, BEHIND, MARGIN, UNKNOWN, ReadAhead
from boot.replay import Replay
from store.format.chunkindex import BLOCK, FRAME
from store.read.hotpack import HotPack
from store.read.image import ImageReader
from store.read.local import DirectorySource
from store.read.order import Pages, StartOrder
from tests.support.stores import NAME, StoredImage, WatchedSource
from tests.support.trees import make_directory, make_file

STEP = 128 << 10


@pytest.fixture
def image(tmp_path: Path) -> StoredImage:
    content = random.Random(4)
    names = {f"small{n}": make_file(content.randbytes(3000 + n)) for n in range(400)}
    large = make_file(content.randbytes(3 << 20))
    tree = make_directory(large=large, small=make_directory(**names))
    return StoredImage(tree, tmp_path / "store")


class Advised:
    """Takes advice in place of the kernel."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []

    def __call__(self, offset: int, size: int) -> int:
        assert 0 < size <= STEP
        assert offset % BLOCK == 0
        self.runs.append((offset, size))
        return size

    def pages(self) -> list[int]:
        return [
            page
            for offset, size in self.runs
            for page in range(offset // BLOCK, -(-(offset + size) // BLOCK))
        ]


def read_ahead(
    reader: ImageReader, advise: Callable[[int, int], int], order: StartOrder | None = None
) -> ReadAhead:
    ahead = ReadAhead(reader, order, Pages(reader.size))
    ahead.advise_by(advise, STEP)
    return ahead


def replay(reader: ImageReader, order: StartOrder, advised: Advised) -> None:
    one = Replay(reader, order, advised, STEP, Pages(reader.size))
    while one.advise_next(is_idle=True):
        pass


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def fill_cache(image: StoredImage, path: Path) -> None:
    cache = image.open_cache(path)
    reader = image.open_reader(cache=cache)
    reader.read(image.index.data_start, image.index.data_size)
    wait_for(lambda: cache.present_count == image.index.chunk_count)
    reader.close()
    cache.close()


def cached_reader(image: StoredImage, path: Path) -> tuple[ImageReader, WatchedSource]:
    fill_cache(image, path)
    source = WatchedSource(DirectorySource(str(image.path)))
    return image.open_reader(source=source, cache=image.open_cache(path)), source


def test_what_follows_a_read_is_advised_once_in_whole_pages(
    image: StoredImage, tmp_path: Path
) -> None:
    reader, source = cached_reader(image, tmp_path / "cache")
    advised = Advised()
    ahead = read_ahead(reader, advised)
    start = image.index.data_start
    for offset in (start, start + 5 * BLOCK, start, start + 70 * BLOCK):
        ahead._follow(offset, BLOCK)
    pages = advised.pages()
    assert len(pages) * BLOCK >= AHEAD
    assert len(pages) == len(set(pages))
    assert not source.fetched


def test_only_what_is_here_is_advised(image: StoredImage, tmp_path: Path) -> None:
    start = image.index.data_start
    first = image.open_cache(tmp_path)
    image.open_reader(cache=first).read(start, 40 * BLOCK)
    source = WatchedSource(DirectorySource(str(image.path)))
    reader = image.open_reader(source=source, cache=image.open_cache(tmp_path))
    advised = Advised()
    ahead = read_ahead(reader, advised)
    ahead._follow(start + image.index.data_size // 2 // BLOCK * BLOCK, BLOCK)
    assert not advised.runs
    ahead._follow(start, BLOCK)
    assert advised.runs
    # All of it can be read without a fetch, the shared pages at the ends included.
    for offset, size in advised.runs:
        reader.read(offset, size)
    assert not source.fetched


def test_nothing_beside_a_read_is_advised_after_a_fetch(image: StoredImage) -> None:
    reader = image.open_reader()
    advised = Advised()
    ahead = read_ahead(reader, advised)
    reader.read(image.index.data_start, 40 * BLOCK)
    ahead._follow(image.index.data_start, BLOCK)
    assert not advised.runs


def test_nothing_is_advised_while_somebody_wants_to_hear_of_all(
    image: StoredImage, tmp_path: Path
) -> None:
    reader, _ = cached_reader(image, tmp_path / "cache")
    advised = Advised()
    ahead = read_ahead(reader, advised)
    ahead.only_watches = lambda: True
    for offset in (0, image.index.data_start):
        ahead._follow(offset, BLOCK)
    assert not advised.runs
    ahead.only_watches = lambda: False
    ahead._follow(image.index.data_start, BLOCK)
    assert advised.runs


def test_much_that_nobody_told_of_is_another_start(image: StoredImage, tmp_path: Path) -> None:
    reader, _ = cached_reader(image, tmp_path / "cache")
    started: list[None] = []
    ahead = ReadAhead(reader, None, Pages(reader.size), lambda: started.append(None))
    start = image.index.data_start
    ahead._take(start, UNKNOWN)
    assert not started  # one that was told of nothing
    ahead.hold()
    ahead._take(start, UNKNOWN - BLOCK)
    assert not started
    ahead._take(start, BLOCK)
    ahead._take(start, UNKNOWN)
    assert len(started) == 1


def test_what_a_profile_names_is_noted_ahead_of_what_it_lacks(
    image: StoredImage, tmp_path: Path
) -> None:
    reader, _ = cached_reader(image, tmp_path / "cache")
    order = StartOrder(str(tmp_path), reader.size)
    first = image.index.data_start // BLOCK
    hot = HotPack.__new__(HotPack)
    hot.profile = None
    ahead = read_ahead(reader, Advised(), order)
    ahead.follow_profile(hot)
    ahead._take(first * BLOCK, BLOCK)
    hot.profile = SimpleNamespace(reads=[(first + 9, 2), (first + 4, 1), (1 << 40, 1)])
    ahead._take((first + 1) * BLOCK, BLOCK)
    ahead._take_profile()
    found = [
        (offset // BLOCK - first) for offset, _ in StartOrder(str(tmp_path), reader.size).reads
    ]
    assert found == [0, 9, 4, 1]


def test_a_profile_of_another_image_is_looked_at_once(image: StoredImage, tmp_path: Path) -> None:
    class Counted(list[tuple[int, int]]):
        looks = 0

        def __iter__(self) -> Iterator[tuple[int, int]]:
            self.looks += 1
            return super().__iter__()

    reader, _ = cached_reader(image, tmp_path / "cache")
    reads = Counted([(1 << 40, 1)])
    hot = HotPack.__new__(HotPack)
    hot.profile = SimpleNamespace(reads=reads)
    ahead = read_ahead(reader, Advised(), StartOrder(str(tmp_path), reader.size))
    ahead.follow_profile(hot)
    for page in range(4):
        ahead._take(image.index.data_start + page * BLOCK, BLOCK)
    assert reads.looks == 1


def test_a_frame_is_advised_whole_and_once(image: StoredImage) -> None:
    advised = Advised()
    ahead = read_ahead(image.open_reader(), advised)
    ahead._follow(BLOCK, BLOCK)
    ahead._follow(0, BLOCK)
    assert sum(size for _, size in advised.runs) == min(FRAME, len(image.plain_bootstrap))
    assert advised.runs[0][0] == 0


def test_the_next_start_replays_what_this_one_read(image: StoredImage, tmp_path: Path) -> None:
    reader, source = cached_reader(image, tmp_path / "cache")
    path = str(tmp_path / "cache" / "v2" / NAME)
    ahead = read_ahead(reader, Advised(), StartOrder(path, reader.size))
    middle = image.index.data_start + image.index.data_size // 2 // BLOCK * BLOCK
    ahead._follow(0, BLOCK)
    ahead._follow(middle, 3 * BLOCK)
    order = StartOrder(path, reader.size)
    frame = -(-min(FRAME, len(image.plain_bootstrap)) // BLOCK) * BLOCK
    assert order.reads == [(0, frame), (middle, 3 * BLOCK)]

    advised = Advised()
    replay(reader, order, advised)
    assert advised.runs == [(0, len(image.plain_bootstrap)), (middle, 3 * BLOCK)]
    assert not source.fetched


def test_what_was_read_on_advice_is_no_news(image: StoredImage, tmp_path: Path) -> None:
    reader, _ = cached_reader(image, tmp_path / "cache")
    order = StartOrder(str(tmp_path), reader.size)
    advised = Pages(reader.size)
    ahead = ReadAhead(reader, order, advised)
    start = image.index.data_start
    advised.add(start, 8 * BLOCK)
    ahead.saw(start, 8 * BLOCK)
    assert ahead._queue.empty()
    ahead.hold()
    ahead.saw(start + 8 * BLOCK, BLOCK)
    assert ahead._queue.empty()
    ahead.resume()
    ahead.saw(start + 9 * BLOCK, BLOCK)
    seen = [ahead._queue.get_nowait() for _ in range(3)]
    assert seen == [(start + 8 * BLOCK, BLOCK), None, (start + 9 * BLOCK, BLOCK)]


def test_advice_that_is_refused_is_no_error(image: StoredImage, tmp_path: Path) -> None:
    reader, _ = cached_reader(image, tmp_path / "cache")

    def refuse(offset: int, size: int) -> int:
        raise FileNotFoundError

    ahead = read_ahead(reader, refuse)
    ahead._follow(image.index.data_start, BLOCK)
    ahead._follow(0, BLOCK)


def test_when_a_start_is_over_its_surroundings_are_fetched(image: StoredImage) -> None:
    source = WatchedSource(DirectorySource(str(image.path)))
    reader = image.open_reader(source=source)
    ahead = read_ahead(reader, Advised())
    middle = image.index.data_start + image.index.data_size // 2
    ahead._follow(middle, BLOCK)
    ahead._settle()
    assert not source.fetched  # nothing was fetched, so the store may be away
    reader.read(middle, BLOCK)
    ahead._follow(middle, BLOCK)
    ahead._settle()
    reader.chunks.wait_until_landed()
    assert sum(source.fetched.values()) > 1
    assert not reader.chunks._flights
    before = source.fetched.copy()
    reader.read(middle - BEHIND, BEHIND + MARGIN)
    assert source.fetched == before


def places_read(image: StoredImage, middle: int) -> set[int]:
    """Give the chunks around ``middle``, an offset in the data region, that are settled."""
    index = image.index
    return {
        chunk
        for place, chunk in enumerate(index.place_chunks)
        if index.starts[place + 1] > middle - BEHIND and index.starts[place] < middle + MARGIN
    }


def test_at_the_end_all_that_waits_is_settled(image: StoredImage, tmp_path: Path) -> None:
    source = WatchedSource(DirectorySource(str(image.path)))
    cache = image.open_cache(tmp_path)
    reader = image.open_reader(source=source, cache=cache)
    order = StartOrder(cache.path, reader.size)
    ahead = read_ahead(reader, Advised(), order)
    queued, held = (image.index.data_size // 4 * n // BLOCK * BLOCK for n in (1, 3))
    for middle in (queued, held):
        if middle == held:
            ahead.hold()
        reader.read(image.index.data_start + middle, BLOCK)
        ahead.saw(image.index.data_start + middle, BLOCK)
    ahead._finish()
    for middle in (queued, held):
        assert all(cache.has(chunk) for chunk in places_read(image, middle))
    assert len(StartOrder(cache.path, reader.size).reads) == 2


def test_what_a_start_was_too_short_for_is_settled_by_the_next(
    image: StoredImage, tmp_path: Path
) -> None:
    cache = image.open_cache(tmp_path)
    middle = image.index.data_size // 4 * 3 // BLOCK * BLOCK
    StartOrder(cache.path, 1 << 40).add((image.index.data_start + middle, BLOCK))
    reader = image.open_reader(cache=cache)
    ahead = read_ahead(reader, Advised(), StartOrder(cache.path, reader.size))
    ahead._finish()
    assert cache.present_count == 0
    reader.read(image.index.data_start, BLOCK)
    ahead._finish()
    assert all(cache.has(chunk) for chunk in places_read(image, middle))
