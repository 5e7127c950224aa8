"""Several stores with the same objects: whatever one does wrong, the right bytes in time."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest

from store.errors import (
    AccessDenied,
    BootfsError,
    IntegrityError,
    PackNotFound,
    RemoteError,
    TimedOut,
    Unreachable,
)
from store.interfaces import Mirror
from store.read import mirrors, retry
from store.read.fetch import ChunkReader
from store.read.mirrors import Mirrors
from store.read.source import open_one
from tests.contract.test_bad_servers import ALWAYS_GOOD, DATA, GOOD, REFUSED, WANTED
from tests.support.scripted import Script, ScriptedServer, partial, response
from tests.support.servers import free_port
from tests.support.stores import StoredImage
from tests.support.trees import make_directory, make_file

LIMIT_S = 3.0
PATIENCE_S = 0.3
MARGIN_S = 1.0
"""For a machine that is busy with other things."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(retry, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(mirrors, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(mirrors, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(mirrors, "PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(mirrors, "TRIAL_PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(mirrors, "FIRST_REST_S", 0.2)
    monkeypatch.setattr(mirrors, "LONGEST_REST_S", 0.4)
    yield
    # A socket that nobody closed is a warning, and so an error, here and not later.
    gc.collect()


def open_mirror(url: str) -> Mirror:
    # The limit is that of a read from it alone.
    return open_one(url, LIMIT_S, "", "")


@contextmanager
def mirrored(*urls: str, limit_s: float = LIMIT_S) -> Iterator[tuple[Mirrors, list[str]]]:
    lines: list[str] = []
    with closing(Mirrors("|".join(urls), limit_s, lines.append, open_mirror)) as source:
        yield source, lines


def fetch(source: Mirrors, limit_s: float = LIMIT_S) -> bytes:
    started = time.monotonic()
    try:
        return source.fetch("name", 10, 100, check)
    finally:
        assert time.monotonic() - started < limit_s + MARGIN_S


def check(body: memoryview) -> None:
    """Refuse wrong bytes as a receiver does who knows the digest."""
    if bytes(body) != WANTED[: len(body)]:
        raise IntegrityError("chunk 1: wrong")


WRONG = partial(bytes(5000), 10, 100)
FAULTS: dict[str, Script] = {
    **{name: script for name, (script, _) in REFUSED.items()},
    "wrong bytes": ("request", WRONG),
    "one wrong byte": ("request", GOOD[:-1] + bytes([GOOD[-1] ^ 1])),
    "429": ("request", response("429 Slow down", retry_after="7")),
    "a reset in the body": ("request", GOOD[:-20], "reset"),
    "a short body": ("request", GOOD[:-20], "close"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_where_one_fails_the_next_is_asked_at_once(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than two fetches take on a busy machine: afterwards it would be asked again.
    monkeypatch.setattr(mirrors, "FIRST_REST_S", 60.0)
    monkeypatch.setattr(mirrors, "LONGEST_REST_S", 60.0)
    with ScriptedServer(FAULTS[fault]) as bad, ScriptedServer(ALWAYS_GOOD) as good:
        with mirrored(bad.url, good.url) as (source, lines):
            started = time.monotonic()
            assert fetch(source) == WANTED
            assert time.monotonic() - started < PATIENCE_S + MARGIN_S
            assert bad.connections >= 1
            asked = len(bad.requests)
            # Left alone, all is asked of the other.
            assert fetch(source) == WANTED
            assert len(bad.requests) == asked
        (line,) = lines
        assert line.startswith(f"mirror {bad.url} is left")


def test_the_first_is_asked_while_it_works() -> None:
    with ScriptedServer(ALWAYS_GOOD) as first, ScriptedServer(ALWAYS_GOOD) as second:
        with mirrored(first.url, second.url) as (source, lines):
            source.dial()
            for _ in range(5):
                assert fetch(source) == WANTED
        assert (second.connections, lines) == (0, [])
        assert first.connections == 1


def test_one_that_works_again_is_returned_to() -> None:
    bad: Script = ("request", response("500 Oops"), "close")
    with ScriptedServer(bad, bad, ALWAYS_GOOD) as first, ScriptedServer(ALWAYS_GOOD) as second:
        with mirrored(first.url, second.url) as (source, lines):
            deadline = time.monotonic() + 10
            while len(lines) < 2 and time.monotonic() < deadline:
                assert fetch(source) == WANTED
                time.sleep(0.02)
            asked = len(second.requests)
            for _ in range(3):
                assert fetch(source) == WANTED
            assert len(second.requests) == asked
        # One line when it is left, one when it is back, although it was tried in vain once.
        assert len(lines) == 2
        assert lines[0].startswith(f"mirror {first.url} is left: ")
        assert lines[1] == f"mirror {first.url} is back"
        assert first.connections == 3


def test_one_that_lacks_an_object_is_asked_for_others() -> None:
    lacks: Script = ("request", response("404 Not Found"))
    with ScriptedServer(lacks, ALWAYS_GOOD) as first, ScriptedServer(ALWAYS_GOOD) as second:
        with mirrored(first.url, second.url) as (source, lines):
            assert source.fetch("lacking", 10, 100, check) == WANTED
            assert source.fetch("there", 10, 100, check) == WANTED
        assert len(first.requests) == 2
        (line,) = lines
        assert line.startswith(f"mirror {first.url} is left for lacking: ")


def test_a_trial_is_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "PATIENCE_S", 2.0)
    slow_good: Script = ("request", 0.2, GOOD) * 40
    with (
        ScriptedServer(("request", "reset"), ("request", 5.0)) as first,
        ScriptedServer(slow_good) as second,
        mirrored(first.url, second.url, limit_s=10) as (source, _),
    ):
        assert fetch(source, 10) == WANTED
        time.sleep(0.25)  # its rest is over
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: fetch(source, 10), range(8)))
        assert found == [WANTED] * 8
        assert len(first.requests) == 2


def test_all_that_fail_are_named_with_their_reasons() -> None:
    with (
        ScriptedServer(("request", response("404 Not Found"))) as first,
        ScriptedServer(("request", response("403 No"))) as second,
        ScriptedServer(("request", WRONG) * 2) as third,
        mirrored(first.url, second.url, third.url) as (source, _),
        pytest.raises(RemoteError) as raised,
    ):
        fetch(source)
    for part in (f"{first.url}/name: 404", f"{second.url}/name: 403", "chunk 1: wrong"):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (response("404 Not Found"), PackNotFound),
        (response("403 No"), AccessDenied),
        (WRONG, IntegrityError),
    ],
)
def test_what_all_say_is_what_comes_out(answer: bytes, kind: type[BootfsError]) -> None:
    script: Script = ("request", answer) * 2
    with (
        ScriptedServer(script) as first,
        ScriptedServer(script) as second,
        mirrored(first.url, second.url) as (source, _),
        pytest.raises(kind),
    ):
        fetch(source)


@pytest.mark.parametrize("script", [("request", 60.0), ("request", "reset"), ("close",)])
def test_when_all_are_gone_the_limit_holds(script: Script) -> None:
    with (
        ScriptedServer(script) as first,
        ScriptedServer(script) as second,
        mirrored(first.url, second.url, limit_s=1) as (source, _),
    ):
        with pytest.raises(TimedOut) as raised:
            fetch(source, 1)
        assert first.url in str(raised.value) and second.url in str(raised.value)


def test_all_are_asked_again_until_one_is_back() -> None:
    busy: Script = ("request", response("503 Busy"), "close")
    with ScriptedServer(busy) as first, ScriptedServer(busy, busy, ALWAYS_GOOD) as second:
        with mirrored(first.url, second.url) as (source, _):
            assert fetch(source) == WANTED
        assert second.connections == 3


def test_bytes_wrong_on_their_way_are_asked_for_once_more_where_nobody_else_answers() -> None:
    lies: Script = ("request", WRONG, "close")
    nobody = f"http://127.0.0.1:{free_port()}"
    with ScriptedServer(lies, ALWAYS_GOOD) as first, mirrored(first.url, nobody) as (source, _):
        assert fetch(source) == WANTED


def test_a_directory_that_is_not_there_is_one_mirror_less(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "name").write_bytes(DATA)
    with mirrored(f"{tmp_path}/gone", f"{tmp_path}/there") as (source, lines):
        source.dial()
        assert fetch(source) == WANTED
        assert len(lines) == 1 and f"{tmp_path}/gone" in lines[0]
    with pytest.raises(Unreachable, match=r"gone.*too"):
        Mirrors(f"{tmp_path}/gone|{tmp_path}/too", 1, print, open_mirror)


def test_a_lie_reaches_neither_cache_nor_reader(tmp_path: Path) -> None:
    """Each chunk of a range may come from another mirror: both lie, each about its own half."""
    image = StoredImage(make_directory(big=make_file(Random(1).randbytes(900_000))), tmp_path / "a")
    whole = image.whole()[image.index.data_start :]
    (pack,) = (image.path / "packs").glob("*/*")
    data = pack.read_bytes()
    middle = len(data) // 2
    other = tmp_path / "b" / pack.relative_to(image.path)
    other.parent.mkdir(parents=True)
    pack.write_bytes(data[:middle] + bytes(len(data) - middle))
    other.write_bytes(bytes(middle - 300_000) + data[middle - 300_000 :])
    cache = image.open_cache(tmp_path / "cache")
    with mirrored(str(image.path), f"{tmp_path}/b") as (source, lines):
        reader = ChunkReader(image.index, source, cache, lines.append, memory_limit=0)
        chunks = list(range(image.index.chunk_count))
        for chunk in chunks:
            assert reader.read([chunk])[chunk] == plain_of(image, whole, chunk)
        cached = cache.read(0, len(chunks))
        assert cached is not None
        assert bytes(cached) == whole[: len(cached)]
        assert any(f"in {image.path}/packs/" in line for line in lines)
    cache.close()


def plain_of(image: StoredImage, whole: bytes, chunk: int) -> bytes:
    start = image.index.starts[chunk]
    return whole[start : start + image.index.plain_sizes[chunk]]
