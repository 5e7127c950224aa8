"""Hot packs: what they bring, and that nothing wrong with one costs more than time."""

from __future__ import annotations

import hashlib
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from random import Random

import pytest
from zstandard import ZstdCompressor

from boot import completion
from store.errors import Unreachable
from store.format.names import hot_pack_name, profiles_name
from store.format.profile import Profile
from store.format.status import HOT_PACK, REQUEST, REQUESTS_AT
from store.read import claims, hotpack
from store.read.cache import Cache
from store.read.counts import Counts
from store.read.fetch import ChunkReader
from store.read.hotpack import HotPack
from store.read.local import DirectorySource
from store.write.profiles import encode_profiles, iter_hot_pack
from tests.support.statuses import memory
from tests.support.stores import StoredImage, WatchedSource
from tests.support.trees import make_directory, make_file

IMAGE = b"\7" * 32
COMMAND = [b"serve", b"--fast"]


@pytest.fixture
def image(tmp_path: Path) -> StoredImage:
    """Give an image of many chunks."""
    files = {f"f{n}": make_file(Random(n).randbytes(400_000)) for n in range(4)}
    return StoredImage(make_directory(**files), tmp_path / "s")


@pytest.fixture
def cache(image: StoredImage, tmp_path: Path) -> Iterator[Cache]:
    opened = image.open_cache(tmp_path / "c")
    yield opened
    opened.close()


def plain(image: StoredImage, chunk: int) -> bytes:
    place = list(image.index.place_chunks).index(chunk)
    start = image.index.data_start + image.index.starts[place]
    return whole_of(image)[start : start + image.index.plain_sizes[chunk]]


@lru_cache(1)
def whole_of(image: StoredImage) -> bytes:
    return image.whole()


def put(
    image: StoredImage,
    chunks: list[int],
    spoil: Callable[[bytes], bytes] = lambda data: data,
    command: list[bytes] = COMMAND,
    of: bytes = IMAGE,
) -> Profile:
    """Add a profile of ``chunks`` to the store, its hot pack changed by ``spoil``."""
    data = spoil(b"".join(iter_hot_pack(chunks, lambda chunk: plain(image, chunk))))
    profile = Profile("default", command)
    profile.chunks = array("I", chunks)
    profile.hot_pack = hashlib.sha256(data).digest()
    profile.hot_pack_size = len(data)
    for name, content in (
        (hot_pack_name(profile.hot_pack), data),
        (profiles_name(IMAGE), encode_profiles(of, [profile])),
    ):
        path = image.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return profile


threads: list[threading.Thread] = []


@pytest.fixture(autouse=True)
def joined(cache: Cache) -> Iterator[None]:
    """Wait for the threads of a test before its cache is closed."""
    yield
    while threads:
        threads.pop().join(20)


def beside(hot: HotPack) -> None:
    """Run a hot pack in a thread."""
    threads.append(threading.Thread(target=hot.run))
    threads[-1].start()


class StreamedSource(WatchedSource):
    """A watched store whose streams are counted, and wait for ``gate`` after so many bytes."""

    def __init__(self, image: StoredImage, gate_at: int | None = None) -> None:
        self.directory = DirectorySource(str(image.path))
        super().__init__(self.directory)
        self.streamed: list[str] = []
        self.gate_at = gate_at
        self.gate = threading.Event()
        self.reached = threading.Event()
        self.fails = False
        self.trickles = False

    def stream(self, name: str, limit: int, arrived: Callable[[memoryview], None]) -> int:
        self.streamed.append(name)
        done = 0

        def pass_on(piece: memoryview) -> None:
            nonlocal done
            for at in range(0, len(piece), 4096):
                if name.startswith("hot/") and self.gate_at is not None and done >= self.gate_at:
                    self.reached.set()
                    assert self.gate.wait(20)
                    if self.fails:
                        raise Unreachable("the network is gone")
                arrived(piece[at : at + 4096])
                done += 4096
                if self.trickles and done >= 100_000:
                    # Slower and slower, and never silent for long.
                    self.gate.wait(0.1)

        return self.directory.stream(name, limit, pass_on)


def begin(
    image: StoredImage,
    source: StreamedSource,
    cache: Cache | None,
    name: str = "",
    command: list[bytes] = COMMAND,
    limit_s: float = 0.0,
) -> tuple[ChunkReader, HotPack, list[str]]:
    said: list[str] = []
    reader = ChunkReader(image.index, source, cache, said.append, read_limit_s=limit_s)
    hot = HotPack(reader, source, cache, IMAGE, (name, command), said.append)
    reader.expect_decision(hot)
    return reader, hot, said


def test_a_start_that_reads_its_profile_makes_two_requests(
    image: StoredImage, cache: Cache
) -> None:
    order = Random(5).sample(range(image.index.chunk_count), image.index.chunk_count - 2)
    profile = put(image, order)
    source = StreamedSource(image)
    reader, hot, said = begin(image, source, cache)
    beside(hot)
    for chunk in order:
        assert reader.read([chunk])[chunk] == plain(image, chunk)
    assert source.streamed == [profiles_name(IMAGE), hot_pack_name(profile.hot_pack)]
    assert not source.fetched
    assert not said
    assert reader.counters.fetched_chunks == len(order)
    assert all(map(cache.has, order))


def test_what_it_does_not_bring_is_fetched(image: StoredImage, cache: Cache) -> None:
    put(image, [0, 1])
    source = StreamedSource(image)
    reader, hot, _ = begin(image, source, cache)
    beside(hot)
    assert reader.read([5])[5] == plain(image, 5)
    assert source.fetched.total() == 1


def test_the_first_chunks_are_read_while_the_rest_is_on_its_way(
    image: StoredImage, cache: Cache
) -> None:
    chunks = list(range(image.index.chunk_count))
    put(image, chunks)
    source = StreamedSource(image, gate_at=600_000)
    reader, hot, _ = begin(image, source, cache)
    beside(hot)
    assert reader.read([0])[0] == plain(image, 0)
    assert source.reached.wait(20)
    assert not all(map(cache.has, chunks))
    source.gate.set()
    last = chunks[-1]
    assert reader.read([last])[last] == plain(image, last)


def test_a_reader_does_not_wait_for_what_comes_late(image: StoredImage, cache: Cache) -> None:
    chunks = list(range(image.index.chunk_count))
    put(image, chunks)
    source = StreamedSource(image, gate_at=200_000)
    reader, hot, _ = begin(image, source, cache)
    beside(hot)
    assert source.reached.wait(20)
    time.sleep(0.3)
    last = chunks[-1]
    # The stream stands still, and this is at its end.
    assert reader.read([last])[last] == plain(image, last)
    assert source.fetched.total() == 1
    source.gate.set()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[: len(data) // 2] + bytes(50) + data[len(data) // 2 + 50 :],
        lambda data: b"no frame at all",
        lambda data: ZstdCompressor().compress(bytes(50 << 20)),
        lambda data: data + ZstdCompressor().compress(b"more"),
    ],
    ids=["cut", "changed", "no frame", "a bomb of zeros", "too long"],
)
def test_a_damaged_hot_pack_costs_time_alone(
    image: StoredImage, cache: Cache, spoil: Callable[[bytes], bytes]
) -> None:
    chunks = list(range(image.index.chunk_count))
    put(image, chunks, spoil)
    source = StreamedSource(image)
    reader, hot, said = begin(image, source, cache)
    beside(hot)
    for chunk in chunks:
        assert reader.read([chunk])[chunk] == plain(image, chunk)
    threads.pop().join(20)
    assert len(said) == 1
    assert "going on without" in said[0]


def test_a_missing_hot_pack_costs_time_alone(image: StoredImage, cache: Cache) -> None:
    profile = put(image, [0, 1, 2])
    (image.path / hot_pack_name(profile.hot_pack)).unlink()
    source = StreamedSource(image)
    reader, hot, said = begin(image, source, cache)
    hot.run()
    assert reader.read([1])[1] == plain(image, 1)
    assert "has no hot/" in said[0]


@pytest.mark.parametrize(
    "chunks", [[0, 0], [9999]], ids=["a chunk twice", "a chunk that there is not"]
)
def test_a_profile_of_wrong_numbers_is_left(
    image: StoredImage, cache: Cache, chunks: list[int]
) -> None:
    profile = put(image, [0])
    profile.chunks = array("I", chunks)
    (image.path / profiles_name(IMAGE)).write_bytes(encode_profiles(IMAGE, [profile]))
    source = StreamedSource(image)
    reader, hot, said = begin(image, source, cache)
    hot.run()
    assert source.streamed == [profiles_name(IMAGE)]
    assert "wrongly" in said[0]
    assert reader.read([0])[0] == plain(image, 0)


def test_the_profiles_of_another_image_are_left(image: StoredImage, cache: Cache) -> None:
    put(image, [0], of=b"\1" * 32)
    _, hot, said = begin(image, StreamedSource(image), cache)
    hot.run()
    assert "of another image" in said[0]


@pytest.mark.parametrize("data", [b"", b"bootfsPF", b"x" * 500, b"bootfsPF" + bytes(500)])
def test_a_document_that_is_none_is_left(image: StoredImage, cache: Cache, data: bytes) -> None:
    put(image, [0])
    (image.path / profiles_name(IMAGE)).write_bytes(data)
    source = StreamedSource(image)
    reader, hot, said = begin(image, source, cache)
    hot.run()
    assert len(said) == 1
    assert reader.read([0])[0] == plain(image, 0)


def test_without_profiles_a_start_says_nothing(image: StoredImage, cache: Cache) -> None:
    source = StreamedSource(image)
    reader, hot, said = begin(image, source, cache)
    beside(hot)
    assert reader.read([3])[3] == plain(image, 3)
    assert source.streamed == [profiles_name(IMAGE)]
    assert not said


def test_a_profile_that_was_asked_for_by_name_is_missed(image: StoredImage, cache: Cache) -> None:
    _, hot, said = begin(image, StreamedSource(image), cache, name="web")
    hot.run()
    assert "no profile 'web'" in said[0]
    put(image, [0])
    _, hot, said = begin(image, StreamedSource(image), cache, name="web")
    hot.run()
    assert "no profile 'web'" in said[0]


def test_a_name_decides_before_the_command(image: StoredImage, cache: Cache) -> None:
    put(image, [0, 1])
    source = StreamedSource(image)
    reader, hot, _ = begin(image, source, cache, name="default", command=[b"something else"])
    hot.run()
    assert reader.counters.fetched_chunks == 2


def test_another_command_has_no_use_for_it(image: StoredImage, cache: Cache) -> None:
    put(image, [0, 1])
    source = StreamedSource(image)
    _, hot, said = begin(image, source, cache, command=[b"other"])
    hot.run()
    assert source.streamed == [profiles_name(IMAGE)]
    assert not said


def test_two_containers_on_one_cache_fetch_it_once(image: StoredImage, tmp_path: Path) -> None:
    chunks = list(range(image.index.chunk_count))
    profile = put(image, chunks)
    first = image.open_cache(tmp_path / "c", owner=1)
    second = image.open_cache(tmp_path / "c", owner=2)
    slow = StreamedSource(image, gate_at=300_000)
    reader, hot, _ = begin(image, slow, first)
    beside(hot)
    assert slow.reached.wait(20)
    other = StreamedSource(image)
    follower, too, _ = begin(image, other, second)
    too.run()
    assert other.streamed == [profiles_name(IMAGE)]
    threading.Timer(0.2, slow.gate.set).start()
    wanted = chunks[len(chunks) // 2]
    assert follower.read([wanted])[wanted] == plain(image, wanted)
    # By the other's stream: it had claimed what it had not brought yet.
    assert not other.fetched
    assert slow.streamed[-1] == hot_pack_name(profile.hot_pack)
    reader.wait_until_landed()


def test_while_its_first_byte_is_late_others_leave_the_hot_pack_to_who_asked_for_it(
    image: StoredImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "CLAIM_S", 0.6)
    monkeypatch.setattr(hotpack, "RENEW_S", 0.1)
    monkeypatch.setattr(hotpack, "FIRST_PATIENCE_S", 0.1)
    chunks = list(range(image.index.chunk_count))
    profile = put(image, chunks)
    first = image.open_cache(tmp_path / "c", owner=1)
    second = image.open_cache(tmp_path / "c", owner=2)
    slow = StreamedSource(image, gate_at=0)
    reader, hot, _ = begin(image, slow, first)
    beside(hot)
    assert slow.reached.wait(20)
    assert reader.read([0])[0] == plain(image, 0)
    # Longer than the claim of somebody who says nothing.
    time.sleep(1.5)
    other = StreamedSource(image)
    follower, too, _ = begin(image, other, second)
    too.run()
    assert other.streamed == [profiles_name(IMAGE)]
    assert follower.read([0])[0] == plain(image, 0)
    slow.gate.set()
    threads[-1].join(20)
    # When it is over, nobody holds it.
    assert second.claims.is_free(profile.hot_pack)
    assert slow.streamed + other.streamed == [
        profiles_name(IMAGE),
        hot_pack_name(profile.hot_pack),
        profiles_name(IMAGE),
    ]


def test_claims_move_on_before_the_stream(
    image: StoredImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hotpack, "CLAIMED", 300_000)
    monkeypatch.setattr(hotpack, "RENEW_S", 0.0)
    chunks = list(range(image.index.chunk_count))
    put(image, chunks)
    first = image.open_cache(tmp_path / "c", owner=1)
    second = image.open_cache(tmp_path / "c", owner=2)
    source = StreamedSource(image, gate_at=400_000)
    _, hot, _ = begin(image, source, first)
    beside(hot)
    assert source.reached.wait(20)

    def claimed() -> list[bool]:
        return [not second.claims.is_free(image.index.digest(chunk)) for chunk in chunks]

    ends = list(accumulate(image.index.plain_sizes))
    now = claimed()
    # What has come is here and nobody's any more; then what comes soon; the rest is free.
    here = [second.has(chunk) or first.has(chunk) for chunk in chunks]
    came = here.index(False)
    assert came > 0 and not any(now[:came]) and not any(here[came:])
    until = now.index(False, came)
    assert came < until < len(chunks) and not any(now[until:])
    assert ends[until - 1] <= ends[came - 1] + 300_000 < ends[until] + 100_000
    source.gate.set()
    threads[-1].join(20)
    assert not any(claimed()) and all(map(first.has, chunks))


def test_a_stream_that_failed_is_counted_as_such_with_what_came(
    image: StoredImage, cache: Cache
) -> None:
    chunks = list(range(image.index.chunk_count))
    put(image, chunks)
    source = StreamedSource(image, gate_at=300_000)
    source.fails = True
    source.gate.set()
    said: list[str] = []
    memory_of_counts = memory()
    counts = Counts(memory_of_counts)
    reader = ChunkReader(image.index, source, cache, said.append, counts=counts)
    hot = HotPack(reader, source, cache, IMAGE, ("", COMMAND), said.append)
    hot.run()
    came = sum(map(cache.has, chunks))
    assert 0 < came < len(chunks)
    counters = counts.counters
    assert (counters.errors, counters.requests, counters.fetched_bytes) == (1, 0, 0)
    assert (counters.listed_requests, counters.fetched_chunks) == (1, came)
    *_, size, pack, listed, failed = REQUEST.unpack_from(memory_of_counts, REQUESTS_AT)
    assert (size >= 300_000, pack, listed, failed) == (True, HOT_PACK, came, 1)


def test_completion_beside_a_stream_fetches_nothing_that_it_brings(
    image: StoredImage, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "QUIET_S", 0.0)
    chunks = list(range(image.index.chunk_count))
    hot_ones = chunks[: len(chunks) // 2]
    put(image, hot_ones)
    source = StreamedSource(image, gate_at=100_000)
    reader, hot, said = begin(image, source, cache)
    beside(hot)
    assert source.reached.wait(20)
    rest = threading.Thread(target=completion.Completion(reader, 0, said.append).run)
    rest.start()
    time.sleep(0.3)
    # It waits for what is on its way, and has begun with nothing else of that window.
    assert not any(map(cache.has, hot_ones[-3:]))
    source.gate.set()
    rest.join(20)
    assert all(map(cache.has, chunks)) and not said
    # Each came once, by one way or the other.
    assert reader.counters.fetched_chunks == len(chunks)


def test_without_a_thread_a_start_goes_without_and_says_what_that_costs(
    image: StoredImage, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(image, [0])
    source = StreamedSource(image)
    reader, hot, said = begin(image, source, cache)

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(hotpack, "start_new_thread", refuse)
        hot.start()
    # The kernel is to read on as ever.
    assert hot.is_without
    assert reader.read([0])[0] == plain(image, 0)
    (line,) = said
    assert "takes longer, and nothing else is lost; give the container a larger --pids" in line


def test_a_stream_that_breaks_leaves_its_readers_to_fetch(image: StoredImage, cache: Cache) -> None:
    chunks = list(range(image.index.chunk_count))
    put(image, chunks)
    source = StreamedSource(image, gate_at=300_000)
    source.fails = True
    reader, hot, said = begin(image, source, cache)
    beside(hot)
    assert source.reached.wait(20)
    threading.Timer(0.1, source.gate.set).start()
    for chunk in chunks:
        assert reader.read([chunk])[chunk] == plain(image, chunk)
    assert "the network is gone" in said[0]
    assert source.fetched


def test_without_a_hot_pack_its_chunks_are_fetched_ahead(image: StoredImage, cache: Cache) -> None:
    chunks = [5, 1, 2, 7]
    profile = Profile("default", COMMAND)
    profile.chunks = array("I", chunks)
    (image.path / "profiles").mkdir()
    (image.path / profiles_name(IMAGE)).write_bytes(encode_profiles(IMAGE, [profile]))
    source = StreamedSource(image)
    reader, hot, said = begin(image, source, cache)
    hot.run()
    assert source.streamed == [profiles_name(IMAGE)]
    assert all(map(cache.has, chunks))
    assert not any(cache.has(c) for c in range(image.index.chunk_count) if c not in chunks)
    fetched = source.fetched.total()
    assert reader.read([7])[7] == plain(image, 7)
    assert source.fetched.total() == fetched
    assert not said


def test_a_store_that_is_away_is_told_of_by_who_wants_a_chunk(
    image: StoredImage, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = StreamedSource(image)

    def fail(*_: object) -> int:
        raise Unreachable("nobody there")

    monkeypatch.setattr(source.directory, "stream", fail)
    _, hot, said = begin(image, source, cache)
    hot.run()
    assert not said
    _, hot, said = begin(image, source, cache, name="web")
    hot.run()
    assert said == ["no profile 'web': nobody there"]


@pytest.mark.parametrize("limit_s", [1.0, 4.0])
def test_a_stream_that_trickles_takes_nobody_s_limit(
    image: StoredImage, cache: Cache, limit_s: float
) -> None:
    chunks = list(range(image.index.chunk_count))
    put(image, chunks)
    source = StreamedSource(image)
    source.trickles = True
    reader, hot, _ = begin(image, source, cache, limit_s=limit_s)
    beside(hot)
    begun = time.monotonic()
    for chunk in chunks:
        assert reader.read([chunk])[chunk] == plain(image, chunk)
    assert time.monotonic() - begun < 15
    assert source.fetched
    source.gate.set()


def test_a_stream_that_does_not_begin_is_waited_for_once(image: StoredImage, cache: Cache) -> None:
    chunks = list(range(image.index.chunk_count))
    put(image, chunks)
    source = StreamedSource(image, gate_at=0)
    reader, hot, _ = begin(image, source, cache)
    beside(hot)
    assert source.reached.wait(20)
    begun = time.monotonic()
    for chunk in chunks:
        assert reader.read([chunk])[chunk] == plain(image, chunk)
    # Not a second for each of them.
    assert time.monotonic() - begun < 0.2 * len(chunks)
    source.gate.set()


def test_readers_beside_the_decision_all_get_what_they_want(
    image: StoredImage, cache: Cache
) -> None:
    put(image, [0, 1])
    for _ in range(100):
        reader, hot, _ = begin(image, StreamedSource(image), None)
        with ThreadPoolExecutor(8) as pool:
            wanted = [pool.submit(reader.read, [chunk]) for chunk in range(2, 10)]
            hot.run()
            assert [one.result(20)[chunk] for chunk, one in enumerate(wanted, 2)] == [
                plain(image, chunk) for chunk in range(2, 10)
            ]


def test_what_is_given_up_is_not_waited_for(image: StoredImage, cache: Cache) -> None:
    chunks = list(range(image.index.chunk_count))
    put(image, chunks)
    source = StreamedSource(image, gate_at=100_000)
    source.fails = True
    reader, hot, _ = begin(image, source, cache)
    beside(hot)
    assert source.reached.wait(20)
    waits = threading.Thread(target=reader.wait_until_landed)
    waits.start()
    source.gate.set()
    waits.join(20)
    assert not waits.is_alive()
