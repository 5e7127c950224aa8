import os
import threading
import time
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import BootfsError, IntegrityError, PackNotFound, TimedOut
from store.format.chunkindex import ChunkIndex
from store.format.digest import digest_of
from store.format.names import CACHE_LAYOUT
from store.format.status import REQUEST, REQUESTS_AT
from store.read import fetchers
from store.read.body import plain_of
from store.read.cache import Cache
from store.read.counts import Counts
from store.read.fetch import ChunkReader
from store.read.local import DirectorySource
from store.read.ranges import GAP_LIMIT, RANGE_LIMIT, plan_ranges
from store.write.packwriter import compress
from tests.support.statuses import memory
from tests.support.stores import NAME, StoredImage, WatchedSource
from tests.support.trees import make_directory, make_file

READERS = 50


@pytest.fixture
def image(tmp_path: Path) -> StoredImage:
    """Give an image of four chunks or more, all of one pack, that cannot be compressed."""
    return StoredImage(make_directory(big=make_file(Random(1).randbytes(600_000))), tmp_path / "s")


def plain(image: StoredImage, chunk: int) -> bytes:
    start = image.index.data_start + image.index.starts[chunk]
    return image.whole()[start : start + image.index.plain_sizes[chunk]]


def make_reader(image: StoredImage, source: WatchedSource, **options: int) -> ChunkReader:
    return ChunkReader(image.index, source, None, lambda _: None, **options)


def watched(image: StoredImage, *args: Callable[..., None], read_ahead: int = 0) -> WatchedSource:
    return WatchedSource(DirectorySource(str(image.path)), *args, read_ahead=read_ahead)


def test_fifty_readers_of_one_chunk_make_one_fetch(image: StoredImage) -> None:
    gate = threading.Event()
    source = watched(image, lambda *_: gate.wait())
    reader = make_reader(image, source)
    barrier = threading.Barrier(READERS + 1)

    def read() -> bytes:
        barrier.wait()
        return reader.read([1])[1]

    with ThreadPoolExecutor(READERS) as pool:
        wanted = [pool.submit(read) for _ in range(READERS)]
        barrier.wait()
        gate.set()
        assert {w.result() for w in wanted} == {plain(image, 1)}
    assert source.fetched.total() == 1


def test_fifty_readers_of_all_chunks_fetch_each_once(image: StoredImage) -> None:
    source = watched(image)
    reader = make_reader(image, source)
    barrier = threading.Barrier(READERS)
    count = image.index.chunk_count

    def read(number: int) -> None:
        barrier.wait()
        for chunk in Random(number).sample(range(count), count):
            assert reader.read([chunk])[chunk] == plain(image, chunk)

    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(read, range(READERS)))
    assert source.fetched.total() == count


def test_a_chunk_wanted_twice_in_one_read_is_fetched_once(image: StoredImage) -> None:
    source = watched(image)
    found = make_reader(image, source).read([0, 1, 0])
    assert found == {0: plain(image, 0), 1: plain(image, 1)}
    assert source.fetched.total() == 1


def test_a_failed_fetch_does_not_fail_a_later_want(image: StoredImage) -> None:
    failures = [TimedOut("late")]

    def fail_once(*_: object) -> None:
        if failures:
            raise failures.pop()

    reader = make_reader(image, watched(image, fail_once))
    with pytest.raises(TimedOut):
        reader.read([0])
    assert reader.read([0])[0] == plain(image, 0)


def test_a_failed_guess_does_not_fail_who_waits_for_it(image: StoredImage) -> None:
    """Chunk 1 is on its way as a guess behind chunk 0 when somebody wants it; then that fails."""
    under_way, gate = threading.Event(), threading.Event()
    failures = [TimedOut("late")]

    def fail_once(*_: object) -> None:
        if failures:
            under_way.set()
            gate.wait()
            raise failures.pop()

    source = watched(image, fail_once, read_ahead=1 << 20)
    reader = make_reader(image, source)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(reader.read, [0])
        under_way.wait()
        second = pool.submit(reader.read, [1])
        time.sleep(0.05)
        gate.set()
        with pytest.raises(TimedOut):
            first.result()
        assert second.result()[1] == plain(image, 1)


def test_many_readers_of_a_store_that_fails_wait_for_two_limits_at_most(
    image: StoredImage,
) -> None:
    limit_s = 0.2

    def fail(*_: object) -> None:
        time.sleep(limit_s)
        raise TimedOut("late")

    source = watched(image, fail)
    reader = make_reader(image, source)
    barrier = threading.Barrier(READERS)

    def read(_: int) -> float:
        barrier.wait()
        started = time.monotonic()
        with pytest.raises(TimedOut):
            reader.read([0])
        return time.monotonic() - started

    with ThreadPoolExecutor(READERS) as pool:
        longest = max(pool.map(read, range(READERS)))
    assert longest < 5 * limit_s  # two, and room for a machine that is busy


def test_what_follows_comes_in_the_same_request(image: StoredImage) -> None:
    source = watched(image, read_ahead=1 << 20)
    reader = make_reader(image, source)
    reader.read([0])
    for chunk in range(image.index.chunk_count):
        assert reader.read([chunk])[chunk] == plain(image, chunk)
    assert source.fetched.total() == 1


def test_memory_keeps_to_its_limit_and_is_used(image: StoredImage) -> None:
    source = watched(image)
    everything = make_reader(image, source, memory_limit=1 << 20)
    for _ in range(3):
        everything.read(list(range(image.index.chunk_count)))
    assert source.fetched.total() == 1
    source = watched(image)
    nothing = make_reader(image, source, memory_limit=0)
    for _ in range(3):
        assert nothing.read([0])[0] == plain(image, 0)
    assert source.fetched.total() == 3


def test_a_damaged_chunk_is_refused_and_its_neighbours_are_not(image: StoredImage) -> None:
    pack = next((image.path / "packs").rglob("*/*"))
    data = bytearray(pack.read_bytes())
    data[image.index.offsets[1] + 50] ^= 4
    pack.write_bytes(data)
    reader = make_reader(image, watched(image))
    with pytest.raises(IntegrityError):
        reader.read([1])
    for chunk in (0, 2):
        assert reader.read([chunk])[chunk] == plain(image, chunk)


def test_a_damaged_cached_chunk_is_counted_told_once_and_mended(
    image: StoredImage, tmp_path: Path
) -> None:
    lines: list[str] = []

    def read(chunk: int, source: WatchedSource) -> ChunkReader:
        cache = Cache(str(tmp_path / "cache"), NAME, image.index.plain_sizes, lines.append)
        reader = ChunkReader(image.index, source, cache, lines.append)
        assert reader.read([chunk]) == {chunk: plain(image, chunk)}
        reader.wait_until_landed()
        return reader

    filled = read(1, watched(image))
    assert filled.counters.cache_bad == 0
    data = tmp_path / "cache" / CACHE_LAYOUT / NAME / "data"
    with data.open("r+b") as file:
        file.seek(sum(image.index.plain_sizes[:1]) + 7)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 8]))
    mended, later = watched(image), watched(image)
    assert read(1, mended).counters.cache_bad == 1
    assert mended.fetched.total() == 1
    assert read(1, later).counters.cache_bad == 0
    assert later.fetched.total() == 0
    assert [line for line in lines if "damaged" in line] == lines and len(lines) == 1


def test_a_missing_pack_is_named(image: StoredImage) -> None:
    next((image.path / "packs").rglob("*/*")).unlink()
    with pytest.raises(PackNotFound, match="packs/"):
        make_reader(image, watched(image)).read([0])


def test_each_failure_is_logged(image: StoredImage) -> None:
    lines: list[str] = []

    def fail(*_: object) -> None:
        raise TimedOut("no answer")

    reader = ChunkReader(image.index, watched(image, fail), None, lines.append)
    with pytest.raises(TimedOut):
        reader.read([0])
    assert lines == ["no answer"]


def test_a_fault_in_a_source_is_an_error_and_not_a_wait_without_end(image: StoredImage) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(BootfsError, match="ZeroDivisionError"):
        make_reader(image, watched(image, fail)).read([0])


def test_a_fault_in_keeping_a_chunk_is_an_error_and_not_a_wait_without_end(
    image: StoredImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    cache = image.open_cache(tmp_path / "c")
    monkeypatch.setattr(cache, "write", fail)
    reader = ChunkReader(image.index, watched(image), cache, lambda _: None)
    with pytest.raises(BootfsError, match="ZeroDivisionError"):
        reader.read([0])
    cache.close()


def test_a_container_without_threads_fetches_in_the_reader(
    image: StoredImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(fetchers, "start_new_thread", refuse)
    reader = make_reader(image, watched(image))
    for chunk in range(image.index.chunk_count):
        assert reader.read([chunk])[chunk] == plain(image, chunk)


def test_a_slow_range_does_not_hold_up_others(image: StoredImage) -> None:
    gate = threading.Event()

    def slow_first(_: str, offset: int, __: int) -> None:
        if offset == image.index.offsets[0]:
            gate.wait()

    reader = make_reader(image, watched(image, slow_first), memory_limit=0)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(reader.read, [0])
        for _ in range(20):
            assert reader.read([2])[2] == plain(image, 2)
        gate.set()
        assert slow.result()[0] == plain(image, 0)


def test_plain_bytes_are_verified_and_have_their_size() -> None:
    for body in (b"text " * 100, Random(2).randbytes(500)):
        stored = compress(body, 3)
        assert plain_of(stored, 500, digest_of(body), "it") == body
        assert plain_of(memoryview(stored), 500, digest_of(body), "it") == body
        with pytest.raises(IntegrityError):
            plain_of(stored, 500, digest_of(b""), "it")
        with pytest.raises(IntegrityError):
            plain_of(stored, 501, digest_of(body), "it")


@st.composite
def indexes(draw: st.DrawFn) -> ChunkIndex:
    index = ChunkIndex()
    at = dict.fromkeys(range(3), 16)
    for _ in range(draw(st.integers(1, 40))):
        pack = draw(st.integers(0, 2))
        at[pack] += draw(st.sampled_from((0, 0, 100, GAP_LIMIT, GAP_LIMIT + 1)))
        size = draw(st.sampled_from((1, 5000, 60_000, 262_144, RANGE_LIMIT)))
        index.packs.append(pack)
        index.offsets.append(at[pack])
        index.stored_sizes.append(size)
        at[pack] += size
    index.plain_sizes = array("I", index.stored_sizes)
    return index


@given(indexes(), st.data())
def test_ranges_hold_every_chunk_once_and_keep_their_limits(
    index: ChunkIndex, data: st.DataObject
) -> None:
    chunks = data.draw(st.lists(st.integers(0, index.chunk_count - 1), unique=True))
    ranges = plan_ranges(index, chunks)
    assert sorted(c for one in ranges for c in one.chunks) == sorted(chunks)
    previous = (-1, 0)
    for one in ranges:
        assert (one.pack, one.start) >= previous
        previous = one.pack, one.end
        assert one.end - one.start <= RANGE_LIMIT or len(one.chunks) == 1
        assert one.start == index.offsets[one.chunks[0]]
        at = one.start
        for chunk in one.chunks:
            assert index.packs[chunk] == one.pack
            assert 0 <= index.offsets[chunk] - at <= GAP_LIMIT
            at = index.offsets[chunk] + index.stored_sizes[chunk]
        assert at == one.end
    for before, after in pairwise(ranges):
        # Never two requests where one would do.
        if before.pack == after.pack and after.start - before.end <= GAP_LIMIT:
            first = after.chunks[0]
            assert index.offsets[first] + index.stored_sizes[first] - before.start > RANGE_LIMIT


def test_readers_on_one_cache_fetch_each_chunk_once(image: StoredImage, tmp_path: Path) -> None:
    """Each has a cache object and threads of its own, as containers have."""
    source = watched(image, lambda *_: time.sleep(0.01))
    count = image.index.chunk_count
    caches = [image.open_cache(tmp_path / "c", owner=n + 1) for n in range(12)]
    readers = [ChunkReader(image.index, source, cache, lambda _: None) for cache in caches]
    barrier = threading.Barrier(len(readers))

    def read(number: int) -> None:
        barrier.wait()
        for chunk in Random(number).sample(range(count), count):
            assert readers[number].read([chunk])[chunk] == plain(image, chunk)

    with ThreadPoolExecutor(len(readers)) as pool:
        list(pool.map(read, range(len(readers))))
    assert sum(reader.counters.fetched_chunks for reader in readers) == count
    assert source.fetched.total() <= count
    assert sum(reader.counters.followed for reader in readers) > 0


def test_a_claim_that_runs_out_delays_and_nothing_else(image: StoredImage, tmp_path: Path) -> None:
    """Whoever was fetching is gone, or stopped, without having released its claims."""
    gone, cache = (image.open_cache(tmp_path / "c", owner=n) for n in (1, 2))
    for chunk in range(image.index.chunk_count):
        assert gone.claims.take(image.index.digest(chunk))
    source = watched(image)
    reader = ChunkReader(image.index, source, cache, lambda _: None)
    chunks = list(range(image.index.chunk_count))
    assert reader.read(chunks) == {chunk: plain(image, chunk) for chunk in chunks}
    assert reader.counters.followed == reader.counters.fetched_chunks == len(chunks)


def test_a_claim_renewed_for_ever_is_not_waited_for_for_ever(
    image: StoredImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetchers, "FOLLOW_S", 0.3)
    other, cache = (image.open_cache(tmp_path / "c", owner=n) for n in (1, 2))
    digest = image.index.digest(1)
    assert other.claims.take(digest)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(0.05):
            other.claims.renew(digest)

    renewing = threading.Thread(target=renew)
    renewing.start()
    reader = ChunkReader(image.index, watched(image), cache, lambda _: None)
    assert reader.read([1])[1] == plain(image, 1)
    ended.set()
    renewing.join()
    assert reader.counters.followed == 1


def test_after_a_failure_of_who_fetched_the_others_do(image: StoredImage, tmp_path: Path) -> None:
    begun, gate = threading.Event(), threading.Event()

    def fail(*_: object) -> None:
        begun.set()
        gate.wait()
        raise TimedOut("late")

    first, second = (image.open_cache(tmp_path / "c", owner=n) for n in (1, 2))
    failing = ChunkReader(image.index, watched(image, fail), first, lambda _: None)
    source = watched(image)
    good = ChunkReader(image.index, source, second, lambda _: None)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(failing.read, [1])
        assert begun.wait(10)
        other = pool.submit(good.read, [1])
        time.sleep(0.05)
        assert not source.fetched
        gate.set()
        with pytest.raises(TimedOut):
            one.result()
        assert other.result() == {1: plain(image, 1)}


def test_what_another_image_has_is_not_fetched(tmp_path: Path) -> None:
    """Two images with files in common, and each with one of its own."""
    common = Random(2).randbytes(900_000)
    trees = [
        make_directory(big=make_file(common), own=make_file(Random(n).randbytes(200_000)))
        for n in (3, 4)
    ]
    images = [StoredImage(tree, tmp_path / f"s{n}") for n, tree in enumerate(trees)]
    read = []
    for number, image in enumerate(images):
        name = f"{number + 1:02x}" * 32
        cache = Cache(str(tmp_path / "c"), name, image.index.plain_sizes, print)
        source = watched(image)
        reader = ChunkReader(image.index, source, cache, print)
        chunks = list(range(image.index.chunk_count))
        assert reader.read(chunks) == {chunk: plain(image, chunk) for chunk in chunks}
        # From its own data now, whatever becomes of the other image's.
        assert all(cache.has(chunk) for chunk in chunks)
        read.append(reader.counters)
        cache.close()
    assert read[0].shared == 0 and read[0].fetched_chunks == images[0].index.chunk_count
    assert read[1].shared >= 5
    assert read[1].fetched_chunks == images[1].index.chunk_count - read[1].shared


@pytest.mark.parametrize("name", ["claims", "places"])
def test_a_table_that_cannot_be_used_costs_the_sharing_alone(
    image: StoredImage, tmp_path: Path, name: str
) -> None:
    cache = image.open_cache(tmp_path / "c")
    (tmp_path / "c" / "v2" / name).mkdir()
    lines: list[str] = []
    reader = ChunkReader(image.index, watched(image), cache, lines.append)
    chunks = list(range(image.index.chunk_count))
    assert reader.read(chunks) == {chunk: plain(image, chunk) for chunk in chunks}
    assert lines == ["cache: Is a directory; not heeding what other containers fetch"]


def test_a_small_cache_under_many_readers_is_never_a_wrong_byte(tmp_path: Path) -> None:
    tree = make_directory(big=make_file(Random(5).randbytes(9_000_000)))
    image = StoredImage(tree, tmp_path / "s")
    chunks = list(range(image.index.chunk_count))
    right = {chunk: plain(image, chunk) for chunk in chunks}
    lines: list[str] = []
    caches = [
        Cache(str(tmp_path / "c"), NAME, image.index.plain_sizes, lines.append, 4 << 20, n + 1)
        for n in range(3)
    ]
    readers = [
        ChunkReader(image.index, watched(image), cache, lines.append, memory_limit=1 << 18)
        for cache in caches
    ]

    def read(number: int) -> None:
        random = Random(number)
        for _ in range(100):
            first = random.choice(chunks)
            wanted = chunks[first : first + random.randrange(1, 5)]
            found = readers[number % 3].read(wanted)
            assert found == {chunk: right[chunk] for chunk in wanted}

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(read, range(6)))
    assert lines == []
    assert sum(reader.counters.cache_hits for reader in readers) > 0
    for cache in caches:
        assert os.fstat(cache._data).st_blocks * 512 <= 4 << 20
        cache.close()


def test_a_read_ends_within_its_limit_whatever_it_waits_for(image: StoredImage) -> None:
    """A fetch that takes longer goes on, and a later read finds what it brought."""
    gate = threading.Event()
    reader = ChunkReader(
        image.index, watched(image, lambda *_: gate.wait()), None, print, read_limit_s=0.2
    )
    for _ in range(2):  # its own fetch, and one that it joins
        with pytest.raises(TimedOut, match=r"not here within 0\.2 s"):
            reader.read([1])
    gate.set()
    reader.wait_until_landed()
    assert reader.read([1]) == {1: plain(image, 1)}
    assert reader.counters.fetched_chunks == 1


def test_a_failed_guess_leaves_a_read_what_is_left_of_its_limit(image: StoredImage) -> None:
    tries = []

    def fail_late(*_: object) -> None:
        tries.append(1)
        time.sleep(0.3)
        raise TimedOut("late")

    reader = ChunkReader(image.index, watched(image, fail_late), None, print, read_limit_s=0.5)
    reader.want([1])
    with pytest.raises(TimedOut):
        reader.read([1])
    # A second one was begun, and not a third.
    reader.wait_until_landed()
    assert len(tries) == 2
    with pytest.raises(TimedOut, match="late"):
        reader.read([1])


def test_what_waits_is_counted_while_it_waits(image: StoredImage) -> None:
    """Two readers of one chunk wait for one request; who reads what is there waits for none."""
    gate = threading.Event()

    def hold(*_: object) -> None:
        assert gate.wait(10)

    counts = Counts(memory())
    waiting = threading.Semaphore(0)

    def whose() -> tuple[int, int, int, bytes]:
        waiting.release()
        return 1 << 21, 4096, 7, b"reader"

    counts.whose = whose
    reader = ChunkReader(image.index, watched(image, hold), None, print, counts=counts)
    with ThreadPoolExecutor(2) as pool:
        wanted = [pool.submit(reader.read, [1]) for _ in range(2)]
        for _ in range(2):
            assert waiting.acquire(timeout=10)
        assert (counts.counters.waits, counts.counters.waiting) == (2, 2)
        assert counts.counters.requests == 0
        gate.set()
        assert all(one.result() == {1: plain(image, 1)} for one in wanted)
    reader.wait_until_landed()
    assert reader.read([1]) == {1: plain(image, 1)}
    counters = counts.counters
    assert (counters.waits, counters.waiting, sum(counters.wait_buckets)) == (2, 0, 2)
    assert counters.listed_reads == 2


def test_what_fails_is_counted_once_and_nobody_goes_on_waiting(image: StoredImage) -> None:
    def fail(*_: object) -> None:
        raise PackNotFound("gone")

    reader = make_reader(image, watched(image, fail))
    for number in (1, 2):
        with pytest.raises(PackNotFound):
            reader.read([1])
        counters = reader.counters
        assert (counters.errors, counters.requests, counters.fetched_bytes) == (number, 0, 0)
        assert (counters.waits, counters.waiting) == (number, 0)
        assert sum(counters.fetch_buckets) == number


def test_a_request_is_counted_with_all_that_came_in_it(image: StoredImage) -> None:
    counts = Counts(memory())
    source = watched(image, read_ahead=1 << 20)
    reader = ChunkReader(image.index, source, None, print, counts=counts)
    reader.read([0])
    reader.wait_until_landed()
    deadline = time.monotonic() + 10
    while not counts.counters.requests:
        # It is counted when its last chunk has landed.
        assert time.monotonic() < deadline
        time.sleep(0.001)
    ((_, start, size),) = source.fetched
    assert counts.counters.fetched_bytes == size == sum(image.index.stored_sizes)
    assert counts.counters.fetched_chunks == image.index.chunk_count
    begun, took, offset, length, pack, chunks, failed = REQUEST.unpack_from(
        counts._memory or b"", REQUESTS_AT
    )
    assert (offset, length, pack, chunks, failed) == (start, size, 0, image.index.chunk_count, 0)
    assert begun > 0 and took > 0


def read_on(image: StoredImage, reader: ChunkReader, count: int) -> None:
    for chunk in range(count):
        assert reader.read([chunk])[chunk] == plain(image, chunk)


@pytest.fixture
def large(tmp_path: Path) -> StoredImage:
    """Give an image of many chunks in one pack."""
    files = {f"f{n}": make_file(Random(n).randbytes(700_000)) for n in range(20)}
    return StoredImage(make_directory(**files), tmp_path / "s")


def test_who_reads_on_has_ever_more_on_the_way(large: StoredImage, tmp_path: Path) -> None:
    source = watched(large, read_ahead=64 << 10)
    cache = large.open_cache(tmp_path / "c")
    reader = ChunkReader(large.index, source, cache, lambda _: None)
    count = large.index.chunk_count
    read_on(large, reader, count)
    stored = sum(large.index.stored_sizes)
    # One after the other they would be some hundreds; none is longer than a range may be.
    assert source.fetched.total() <= stored / (RANGE_LIMIT / 2) + 8
    assert reader.counters.fetched_chunks == count
    cache.close()


def test_without_a_cache_no_more_is_on_the_way_than_memory_holds(large: StoredImage) -> None:
    source = watched(large, read_ahead=64 << 10)
    reader = make_reader(large, source)
    read_on(large, reader, large.index.chunk_count)
    assert reader.counters.fetched_chunks == large.index.chunk_count


def test_who_reads_here_and_there_has_no_more_on_the_way_than_a_round_trip_brings(
    large: StoredImage, tmp_path: Path
) -> None:
    source = watched(large, read_ahead=1)
    cache = large.open_cache(tmp_path / "c")
    reader = ChunkReader(large.index, source, cache, lambda _: None)
    middle = large.index.chunk_count // 2
    reader.read([middle])
    assert reader.counters.fetched_chunks == 1
    reader.link.round_trip_s, reader.link.rate = 0.2, float(1 << 20)
    reader.read([2])
    while reader.counters.requests < 2:
        time.sleep(0.01)  # what was wanted is here, what lies beside it on its way
    fetched = reader.counters.fetched_bytes - large.index.stored_sizes[middle]
    assert 0.2 * (1 << 20) * 0.5 <= fetched <= 0.2 * (1 << 20) + large.index.stored_sizes[2]
    cache.close()


def test_where_memory_is_scarce_less_is_read_ahead_and_kept(
    large: StoredImage, tmp_path: Path
) -> None:
    cache = large.open_cache(tmp_path / "c")
    reader = ChunkReader(large.index, watched(large, read_ahead=1), cache, lambda _: None)
    reader.link.round_trip_s, reader.link.rate = 1.0, float(1 << 20)
    reader.find_room = lambda: 100_000
    read_on(large, reader, 2)
    while reader.counters.requests < 1:
        time.sleep(0.01)
    assert reader.counters.fetched_bytes <= 100_000 + large.index.stored_sizes[0]
    assert reader.memory_limit == 16 * 100_000
    cache.close()


@pytest.mark.parametrize("is_claimed", [True, False])
def test_what_is_given_up_while_it_is_read_is_not_called_damaged(
    tmp_path: Path, is_claimed: bool
) -> None:
    image = StoredImage(make_directory(big=make_file(Random(6).randbytes(200_000))), tmp_path / "s")
    lines: list[str] = []
    cache = Cache(str(tmp_path / "c"), NAME, image.index.plain_sizes, lines.append)
    right = ChunkReader(image.index, watched(image), cache, lines.append).read([0])
    # As one sees it whose look at the map was a moment ago, while another writes the chunk.
    (place,) = (tmp_path / "c").glob("*/*/data")
    with place.open("r+b") as data:
        data.write(bytes(right[0])[:5000] + bytes(len(right[0]) - 5000))
    if not is_claimed:
        with place.with_name("present").open("r+b") as present:
            present.write(b"\0")
    assert ChunkReader(image.index, watched(image), cache, lines.append).read([0]) == right
    assert [line.endswith("is damaged; fetching it again") for line in lines] == [True] * is_claimed
