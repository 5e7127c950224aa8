"""Counting: exact with many threads, in lists that fill up, in memory that others read."""

from __future__ import annotations

from threading import Thread
from time import monotonic

import pytest

from converter.statusfile import parse_status
from store.format.status import (
    BOUNDS_S,
    BUCKETS,
    COUNTS,
    HAND_LIMIT,
    NUMBERS,
    READ_LIMIT,
    REQUEST_LIMIT,
    REQUESTS_AT,
    number_at,
)
from store.read import counts as module
from store.read.counts import Counters, Counts
from tests.support.statuses import encoded, memory


def test_counters_lie_where_the_format_says() -> None:
    shared = memory()
    counters = Counters.from_buffer(shared)
    for number, name in enumerate(NUMBERS):
        setattr(counters, name, 1000 + number)
        at = number_at(name)
        assert int.from_bytes(shared[at : at + 8], "little") == 1000 + number
    counters.fetch_buckets[0] = 7
    counters.wait_buckets[BUCKETS - 1] = 8
    *_, fetches, waits = COUNTS.unpack_from(shared)
    assert (fetches[0], waits[-8]) == (7, 8)
    assert COUNTS.size <= REQUESTS_AT


@pytest.mark.parametrize("took_s", [0.0, *BOUNDS_S, 61.0])
def test_a_time_is_in_the_bucket_whose_bound_it_does_not_pass(
    took_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts(memory())
    monkeypatch.setattr(module, "monotonic", lambda: took_s)
    counts.add_request(0, 0, 1, 1, begun_s=0.0)
    expected = [took_s <= bound for bound in (*BOUNDS_S, float("inf"))].index(True)
    assert list(counts.counters.fetch_buckets) == [n == expected for n in range(BUCKETS)]
    assert counts.counters.fetch_ns == int(took_s * 1e9)


def test_many_threads_lose_no_count() -> None:
    counts = Counts(memory())
    counts.whose = lambda: (4096, 4096, 7, b"reader")

    def act() -> None:
        for _ in range(500):
            counts.add_request(1, 2, 3, 4, monotonic())
            counts.add_request(1, 2, 3, 4, monotonic(), is_failed=True)
            wait = counts.begin_wait()
            assert wait is not None
            counts.end_wait(wait)

    threads = [Thread(target=act) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters = counts.counters
    assert (counters.requests, counters.errors, counters.fetched_bytes) == (4000, 4000, 12000)
    assert sum(counters.fetch_buckets) == 8000
    assert (counters.waits, counters.waiting, sum(counters.wait_buckets)) == (4000, 0, 4000)
    assert (counters.listed_requests, counters.listed_reads) == (REQUEST_LIMIT, 4000)


def test_lists_keep_what_came_first() -> None:
    def act(counts: Counts) -> None:
        for number in range(HAND_LIMIT + 5):
            if counts.lists_at_hand():
                counts.note_at_hand((number, 1, 1, b""))
        for number in range(READ_LIMIT):
            counts.note_wait(monotonic(), (10**6 + number, 1, 1, b""))

    status = parse_status(encoded(act))
    assert [read.offset for read in status.reads[: HAND_LIMIT + 1]] == [*range(HAND_LIMIT), 10**6]
    assert len(status.reads) == READ_LIMIT
    assert status.numbers["unlisted_reads"] == HAND_LIMIT
    assert status.waits.count == READ_LIMIT


def test_a_daemon_that_takes_over_goes_on_counting_and_has_nobody_wait() -> None:
    shared = memory()
    first = Counts(shared)
    first.add_request(0, 0, 10, 1, monotonic())
    first.whose = lambda: (4096, 4096, 7, b"reader")
    assert first.begin_wait() is not None
    second = Counts(shared)
    second.add_request(0, 0, 10, 1, monotonic())
    assert (second.counters.requests, second.counters.waiting) == (2, 0)


def test_a_daemon_that_takes_over_ends_the_waits_of_the_one_before() -> None:
    def act(first: Counts) -> None:
        first.whose = lambda: (4096, 4096, 7, b"reader")
        ended = first.begin_wait()
        assert ended is not None and first.begin_wait() is not None
        first.end_wait(ended)
        second = Counts(first._memory)
        second.whose = first.whose
        assert second.begin_wait() is not None

    status = parse_status(encoded(act))
    # The third is that of the second, asked again.
    assert [read.waits for read in status.reads] == [False, False, True]
    assert status.reads[1].waited_s > 0
    assert status.numbers["waiting"] == 1
    assert (status.numbers["waits"], status.waits.count) == (3, 2)


def test_without_memory_nothing_is_listed_and_all_is_counted() -> None:
    counts = Counts()
    counts.whose = lambda: (0, 1, 2, b"x")
    counts.add_request(0, 0, 10, 1, monotonic())
    wait = counts.begin_wait()
    assert wait is not None
    assert counts.counters.waiting == 1
    counts.end_wait(wait)
    assert not counts.lists_at_hand()
    counters = counts.counters
    assert (counters.requests, counters.waits, counters.waiting) == (1, 1, 0)
    assert (counters.listed_requests, counters.listed_reads) == (0, 0)


def test_where_fetches_are_nobodys_waits_they_are_not_counted_as_such() -> None:
    counts = Counts(memory())
    counts.are_fetches_waits = False
    assert counts.begin_wait() is None
    assert counts.counters.waits == 0
