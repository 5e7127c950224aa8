"""What starts read comes back in pieces, and only from what is at hand."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boot import replay as replay_module
from boot.replay import GAP, NEIGHBOURHOOD, SLICE, Replay
from store.format.chunkindex import BLOCK
from store.read.image import ImageReader
from store.read.order import ENTRY, LIMIT, Pages, StartOrder
from tests.support.stores import StoredImage
from tests.support.trees import make_directory, make_file

STEP = 1 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> StoredImage:
    big = make_file(random.Random(5).randbytes(6 << 20))
    return StoredImage(make_directory(big=big), tmp_path_factory.mktemp("store") / "store")


@pytest.fixture
def reader(image: StoredImage, tmp_path: Path) -> ImageReader:
    """An image whose every chunk is in the cache."""
    cache = image.open_cache(tmp_path / "cache")
    whole = image.whole()
    start = image.index.data_start
    for place, chunk in enumerate(image.index.place_chunks):
        at, end = image.index.starts[place : place + 2]
        cache.write(chunk, whole[start + at : start + end])
    return image.open_reader(cache=cache)


def order_of(path: Path, reader: ImageReader, *reads: tuple[int, int]) -> StartOrder:
    order = StartOrder(str(path), reader.size)
    for offset, size in reads:
        order.add((offset, size))
    return StartOrder(str(path), reader.size)


class Kernel:
    """Takes advice, and has some pages already."""

    def __init__(self, *has: int) -> None:
        self.has = set(has)
        self.asked: list[tuple[int, int]] = []

    def __call__(self, offset: int, size: int) -> int:
        self.asked.append((offset, size))
        pages = range(offset // BLOCK, (offset + size) // BLOCK)
        return sum(BLOCK for page in pages if page not in self.has)


def test_a_list_that_is_a_link_is_not_added_to(reader: ImageReader, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"")
    (tmp_path / "reads").symlink_to(other)
    with pytest.raises(OSError, match="symbolic links"):
        order_of(tmp_path, reader, (0, BLOCK))
    assert other.read_bytes() == b""


def test_neighbours_and_small_gaps_are_one_piece_and_large_gaps_two(
    image: StoredImage, reader: ImageReader, tmp_path: Path
) -> None:
    start = image.index.data_start
    far = start + 8 * BLOCK + GAP + BLOCK
    order = order_of(tmp_path, reader, (far, BLOCK), (start + 4 * BLOCK, 4 * BLOCK), (start, BLOCK))
    kernel = Kernel()
    replay = Replay(reader, order, kernel, STEP, Pages(reader.size))
    while replay.advise_next(is_idle=True):
        pass
    assert kernel.asked == [(start, 8 * BLOCK), (far, BLOCK)]


def test_what_later_starts_missed_comes_with_its_neighbours(
    image: StoredImage, reader: ImageReader, tmp_path: Path
) -> None:
    start = -(-image.index.data_start // NEIGHBOURHOOD) * NEIGHBOURHOOD
    # More than a window, so that the last of the list would come after it.
    reads = [(start + n * NEIGHBOURHOOD, NEIGHBOURHOOD // 2) for n in range(20)]
    late = start + NEIGHBOURHOOD - 2 * BLOCK
    order = order_of(tmp_path, reader, *reads, (late, BLOCK))
    kernel = Kernel()
    replay = Replay(reader, order, kernel, BLOCK, Pages(reader.size))
    while replay.advise_next(is_idle=True):
        pass
    asked = [offset for offset, _ in kernel.asked]
    assert asked.index(late) < asked.index(start + 10 * NEIGHBOURHOOD)
    assert len(asked) == len(set(asked))


def test_of_a_list_of_too_much_only_the_first_is_read(
    image: StoredImage, reader: ImageReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "LIMIT", STEP)
    pages = reader.size // BLOCK
    (tmp_path / "reads").write_bytes(ENTRY.pack(0, pages) * 5000)
    kernel = Kernel()
    replay = Replay(
        reader, StartOrder(str(tmp_path), reader.size), kernel, STEP, Pages(reader.size)
    )
    turns = 0
    while replay.advise_next(is_idle=True):
        turns += 1
    # The list of places is made in some more.
    assert turns < 5000 // SLICE
    assert 0 < sum(size for _, size in kernel.asked) <= STEP
    assert max(offset + size for offset, size in kernel.asked) <= STEP


def test_a_long_list_is_looked_at_between_requests(
    image: StoredImage, reader: ImageReader, tmp_path: Path
) -> None:
    start = image.index.data_start
    order = order_of(tmp_path, reader, *((start + 2 * n * BLOCK, BLOCK) for n in range(SLICE * 2)))
    kernel = Kernel()
    replay = Replay(reader, order, kernel, STEP, Pages(reader.size))
    turns = 0
    while not kernel.asked:
        assert replay.advise_next(is_idle=True)
        turns += 1
    assert turns >= 3


def test_one_piece_is_under_way_at_a_time_unless_idle(
    image: StoredImage, reader: ImageReader, tmp_path: Path
) -> None:
    start = image.index.data_start
    order = order_of(tmp_path, reader, *((start + n * 512 * BLOCK, BLOCK) for n in range(3)))
    kernel = Kernel()
    replay = Replay(reader, order, kernel, STEP, Pages(reader.size))
    assert replay.advise_next(is_idle=False)
    assert replay.advise_next(is_idle=False)
    assert len(kernel.asked) == 1
    replay.answered(BLOCK)
    assert replay.advise_next(is_idle=False)
    assert len(kernel.asked) == 2
    assert replay.advise_next(is_idle=True)
    assert len(kernel.asked) == 3
    assert not replay.advise_next(is_idle=True)


def test_what_the_kernel_has_is_passed_over(
    image: StoredImage, reader: ImageReader, tmp_path: Path
) -> None:
    start = image.index.data_start
    order = order_of(tmp_path, reader, (start, BLOCK), (start + 512 * BLOCK, BLOCK))
    kernel = Kernel(start // BLOCK)
    replay = Replay(reader, order, kernel, STEP, Pages(reader.size))
    assert replay.advise_next(is_idle=True)
    assert kernel.asked[-1] == (start + 512 * BLOCK, BLOCK)


def test_what_is_not_cached_is_not_advised(image: StoredImage, tmp_path: Path) -> None:
    reader = image.open_reader(cache=image.open_cache(tmp_path / "empty"))
    order = order_of(tmp_path, reader, (image.index.data_start, 16 * BLOCK))
    kernel = Kernel()
    assert not Replay(reader, order, kernel, STEP, Pages(reader.size)).advise_next(is_idle=True)
    assert not kernel.asked


@pytest.mark.parametrize(
    "junk", [b"\xff" * 4000, b"\x01", bytes(range(256)) * 16, b"\0" * 64, b"\1\0\0\0\0\0\0\0"]
)
def test_a_wrong_order_costs_time_only(reader: ImageReader, tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "reads").write_bytes(junk)
    order = StartOrder(str(tmp_path), reader.size)
    kernel = Kernel()
    replay = Replay(reader, order, kernel, STEP, Pages(reader.size))
    while replay.advise_next(is_idle=True):
        pass
    assert all(0 < size <= STEP and offset + size <= reader.size for offset, size in kernel.asked)


def test_an_order_keeps_order_and_limit(tmp_path: Path) -> None:
    size = LIMIT * 8 * BLOCK
    first = StartOrder(str(tmp_path), size)
    reads = [(7 * BLOCK, BLOCK), (3 * BLOCK, 2 * BLOCK), (7 * BLOCK, BLOCK), (4 * BLOCK, BLOCK)]
    for offset, length in reads:
        first.add((offset, length))
    second = StartOrder(str(tmp_path), size)
    assert second.reads == reads[:2]
    for page in range(0, LIMIT * 4, 2):
        second.add((page * BLOCK, 1))
    assert len(StartOrder(str(tmp_path), size).reads) == LIMIT
    assert (tmp_path / "reads").stat().st_size == LIMIT * 8


@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(1, 100_000)), max_size=20))
def test_pages_are_a_set_of_pages(reads: list[tuple[int, int]]) -> None:
    size = 200_000
    count = -(-size // BLOCK)
    pages, model = Pages(size), set[int]()
    for offset, length in reads:
        covered = set(range(offset // BLOCK, min(-(-(offset + length) // BLOCK), count)))
        assert pages.holds(offset, length) == (covered <= model)
        gap, gap_size = pages.first_gap(offset, length)
        left = sorted(covered - model)
        if left:
            assert gap // BLOCK == left[0]
            assert set(range(gap // BLOCK, (gap + gap_size) // BLOCK)) & covered <= set(left)
        else:
            assert not gap_size
        pages.add(offset, length)
        model |= covered
