"""What is advised is at hand, in whole pages, once, and costs no fetch."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from boot.readahead import AHEAD, MARGIN, STEP, ReadAhead
from store.format.chunkindex import BLOCK, FRAME
from store.read.image import ImageReader
from store.read.local import DirectorySource
from store.read.order import FRAME_BIT, LIMIT, StartOrder
from tests.support.stores import StoredImage, WatchedSource
from tests.support.trees import make_directory, make_file


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

    def __call__(self, offset: int, size: int) -> None:
        assert 0 < size <= STEP
        assert offset % BLOCK == 0
        self.runs.append((offset, size))

    def pages(self) -> list[int]:
        return [
            page
            for offset, size in self.runs
            for page in range(offset // BLOCK, -(-(offset + size) // BLOCK))
        ]


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
    ahead = ReadAhead(reader, None, advised)
    start = image.index.data_start
    for offset in (start, start + 5 * BLOCK, start, start + 70 * BLOCK):
        ahead._follow(offset, BLOCK)
    pages = advised.pages()
    assert len(pages) * BLOCK >= AHEAD
    # A page that two chunks share may come twice: the end of one run, the start of the next.
    assert len(pages) - len(set(pages)) <= 3
    assert not source.fetched


def test_only_what_is_here_is_advised(image: StoredImage) -> None:
    source = WatchedSource(DirectorySource(str(image.path)))
    reader = image.open_reader(source=source)
    advised = Advised()
    ahead = ReadAhead(reader, None, advised)
    ahead._follow(image.index.data_start, BLOCK)
    assert not advised.runs
    reader.read(image.index.data_start, 40 * BLOCK)
    fetched = source.fetched.copy()
    ahead._follow(image.index.data_start, BLOCK)
    assert advised.runs
    # All of it can be read without another fetch, the shared pages at the ends included.
    for offset, size in advised.runs:
        reader.read(offset, size)
    assert source.fetched == fetched


def test_a_frame_is_advised_whole_and_once(image: StoredImage) -> None:
    advised = Advised()
    ahead = ReadAhead(image.open_reader(), None, advised)
    ahead._follow(BLOCK, BLOCK)
    ahead._follow(0, BLOCK)
    assert sum(size for _, size in advised.runs) == min(FRAME, len(image.plain_bootstrap))
    assert advised.runs[0][0] == 0


def test_the_next_start_advises_what_this_one_read(image: StoredImage, tmp_path: Path) -> None:
    reader, _ = cached_reader(image, tmp_path / "cache")
    path = str(tmp_path / "cache" / "v1" / "image")
    ahead = ReadAhead(reader, StartOrder(path), Advised())
    place = len(image.index.place_chunks) // 2
    offset = image.index.data_start + image.index.starts[place]
    ahead._follow(0, BLOCK)
    ahead._follow(offset, BLOCK)
    order = StartOrder(path)
    assert order.parts[0] == FRAME_BIT
    assert place in order.parts

    advised = Advised()
    ReadAhead(reader, order, advised)._replay(order.parts)
    assert advised.runs[0][0] == 0
    assert offset // BLOCK + 1 in advised.pages()


@pytest.mark.parametrize("junk", [b"\xff" * 4000, b"\x01", bytes(range(256)) * 16])
def test_a_wrong_order_costs_time_only(image: StoredImage, tmp_path: Path, junk: bytes) -> None:
    reader, source = cached_reader(image, tmp_path / "cache")
    path = tmp_path / "cache" / "v1" / "image"
    (path / "order").write_bytes(junk)
    advised = Advised()
    order = StartOrder(str(path))
    ReadAhead(reader, order, advised)._replay(order.parts)
    end = image.index.data_start + image.index.data_size
    assert all(offset + size <= end for offset, size in advised.runs)
    assert not source.fetched


def test_a_start_order_keeps_order_and_limit(tmp_path: Path) -> None:
    first = StartOrder(str(tmp_path))
    for part in [7, 3, 7, FRAME_BIT, 3]:
        first.add(part)
    second = StartOrder(str(tmp_path))
    assert second.parts == [7, 3, FRAME_BIT]
    for part in range(LIMIT * 2):
        second.add(part)
    assert len(StartOrder(str(tmp_path)).parts) == LIMIT
    assert (tmp_path / "order").stat().st_size == LIMIT * 4


def test_advice_that_is_refused_is_no_error(image: StoredImage, tmp_path: Path) -> None:
    reader, _ = cached_reader(image, tmp_path / "cache")

    def refuse(offset: int, size: int) -> None:
        raise FileNotFoundError

    ahead = ReadAhead(reader, None, refuse)
    ahead._follow(image.index.data_start, BLOCK)
    ahead._follow(0, BLOCK)


def test_a_long_run_is_advised_to_its_end(image: StoredImage, tmp_path: Path) -> None:
    reader, _ = cached_reader(image, tmp_path / "cache")
    advised = Advised()
    count = len(image.index.place_chunks)
    assert count > 40
    ReadAhead(reader, None, advised)._replay(list(range(count)))
    first = image.index.data_start // BLOCK
    assert set(advised.pages()) == set(range(first, first + image.index.data_size // BLOCK))


def test_when_a_start_is_over_its_surroundings_are_fetched(image: StoredImage) -> None:
    source = WatchedSource(DirectorySource(str(image.path)))
    reader = image.open_reader(source=source)
    ahead = ReadAhead(reader, None, Advised())
    middle = image.index.data_start + image.index.data_size // 2
    ahead._follow(middle, BLOCK)
    ahead._settle()
    assert not source.fetched  # nothing was fetched, so the store may be away
    reader.read(middle, BLOCK)
    ahead._follow(middle, BLOCK)
    ahead._settle()
    wait_for(lambda: sum(source.fetched.values()) > 1)
    wait_for(lambda: not reader.chunks._flights)
    before = source.fetched.copy()
    reader.read(middle - MARGIN // 2, MARGIN)
    assert source.fetched == before
