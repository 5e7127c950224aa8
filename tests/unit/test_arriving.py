"""Blobs that are read while they arrive: right bytes or the reason, and no thread left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from converter.images.arriving import Arrivals
from converter.spool import GivenUp, Spool
from store.errors import SizeMismatch, StorageFull, Unreachable

DATA = bytes(range(256)) * 64


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path) as opened:
        yield opened


def test_who_reads_waits_for_the_bytes(spool: Spool) -> None:
    may_go_on = threading.Event()

    def fetch() -> Iterator[bytes]:
        yield DATA[:1000]
        may_go_on.wait(10)
        yield DATA[1000:]

    with closing(Arrivals(spool)) as arrivals, ThreadPoolExecutor(1) as pool:
        blob = arrivals.expect("x", len(DATA), fetch)
        assert blob.pread(10, 990) == DATA[10:1000]
        later = pool.submit(blob.part("y", 500, 1000).pread, 0, 1000)
        assert not later.done()
        may_go_on.set()
        assert later.result(10) == DATA[500:1500]
        assert b"".join(blob.iter_pieces(100)) == DATA


def test_nothing_is_fetched_before_it_is_wanted(spool: Spool) -> None:
    fetched = []

    def fetch(name: str) -> Iterator[bytes]:
        fetched.append(name)
        yield DATA

    with closing(Arrivals(spool)) as arrivals:
        unwanted = arrivals.expect("x", len(DATA), lambda: fetch("x"))
        wanted = arrivals.expect("y", len(DATA), lambda: fetch("y"))
        for _ in range(2):
            wanted.want()
        assert wanted.pread(0, len(DATA)) == DATA
        assert fetched == ["y"]
        unwanted.abandon()
        unwanted.want()
        with pytest.raises(GivenUp):
            unwanted.pread(0, 1)
    assert fetched == ["y"]


def test_what_is_wanted_too_late_is_given_up(spool: Spool) -> None:
    arrivals = Arrivals(spool)
    blob = arrivals.expect("x", len(DATA), lambda: iter((DATA,)))
    arrivals.close()
    blob.want()
    with pytest.raises(GivenUp):
        blob.pread(0, 1)


def test_what_goes_wrong_is_raised_where_the_bytes_are_missed(spool: Spool) -> None:
    def fetch() -> Iterator[bytes]:
        yield DATA[:1000]
        raise Unreachable("cut off")

    with closing(Arrivals(spool)) as arrivals:
        blob = arrivals.expect("x", len(DATA), fetch)
        for _ in range(2):
            with pytest.raises(Unreachable, match="cut off"):
                blob.pread(0, 1001)
        assert blob.pread(0, 1000) == DATA[:1000]


def test_bounds_are_kept(spool: Spool) -> None:
    with closing(Arrivals(spool)) as arrivals:
        blob = arrivals.expect("x", len(DATA), lambda: iter((DATA,)))
        part = blob.part("y", 10, 20)
        for offset, size in ((0, 21), (-1, 2), (21, 0), (0, -1)):
            with pytest.raises(SizeMismatch):
                part.pread(offset, size)
            with pytest.raises(SizeMismatch):
                part.part("z", offset, size)
        short = arrivals.expect("x", len(DATA), lambda: iter((DATA[:-1],)))
        with pytest.raises(SizeMismatch):
            short.pread(0, len(DATA))


def test_a_full_disk_is_told_to_who_reads(tmp_path: Path) -> None:
    with Spool(tmp_path, reserve=1 << 62) as spool, closing(Arrivals(spool)) as arrivals:
        blob = arrivals.expect("x", len(DATA), lambda: iter((DATA,)))
        with pytest.raises(StorageFull):
            blob.pread(0, 1)


def test_what_is_abandoned_is_neither_waited_for_nor_fetched(spool: Spool) -> None:
    asked = threading.Semaphore(0)

    def endless() -> Iterator[bytes]:
        while True:
            asked.acquire()
            yield b"x"

    with closing(Arrivals(spool)) as arrivals, ThreadPoolExecutor(1) as pool:
        blobs = [arrivals.expect("x", 1 << 40, endless) for _ in range(3)]
        waiting = pool.submit(blobs[0].pread, 0, 9)
        for blob in blobs:
            blob.abandon()
        with pytest.raises(GivenUp):
            waiting.result(10)
        # Each thread notices with its next piece, and takes the next blob.
        asked.release(3)
        last = arrivals.expect("y", 1, lambda: iter((b"y",)))
        assert last.pread(0, 1) == b"y"


def test_closing_ends_what_is_under_way_and_what_has_not_begun(spool: Spool) -> None:
    begun = threading.Event()

    def endless() -> Iterator[bytes]:
        while True:
            begun.set()
            yield b"x"

    arrivals = Arrivals(spool)
    for _ in range(10):
        arrivals.expect("x", 1 << 40, endless).want()
    assert begun.wait(10)
    spool.end_first(arrivals.close)
    spool.close()
    assert not [thread for thread in threading.enumerate() if "arrival" in thread.name]


def test_closing_ends_who_waits_to_try_again(spool: Spool) -> None:
    arrivals = Arrivals(spool)
    waits = threading.Event()

    def fetch() -> Iterator[bytes]:
        while True:
            waits.set()
            arrivals.pause(600)
            yield b""

    blob = arrivals.expect("x", 1, fetch)
    blob.want()
    assert waits.wait(10)
    arrivals.close()
    with pytest.raises(GivenUp):
        blob.pread(0, 1)
