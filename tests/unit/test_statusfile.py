"""Status files: what a container writes is read as it was meant, anything else refused."""

from __future__ import annotations

import math
import unicodedata
from random import Random
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.statusfile import Histogram, parse_status, shown_name
from converter.statustext import as_facts, iter_lines, one_line
from store.errors import FormatError, UnsupportedVersion
from store.format.status import BOUNDS_S, COUNTS, FILE_LIMIT, HEADER, READ, REQUEST, number_at
from store.read.counts import Counts
from tests.support.statuses import CHUNK_INDEX, encoded, seen


def busy(counts: Counts) -> None:
    """Have one of everything counted."""
    counts.counters.chunks = 4
    counts.counters.data_bytes = 1 << 20
    counts.counters.cache_hits = 3
    counts.add_request(2, 4096, 1000, 3, monotonic())
    counts.add_request(1, 16, 50, 1, monotonic(), is_failed=True)
    counts.note_at_hand((0, 4096, 7, b""))
    counts.whose = lambda: (8192, 4096, 8, b"python3")
    assert counts.begin_wait() is not None
    counts.note_wait(monotonic() - 0.25, (4096, 20, 9, b"sixteen letters!"))


def test_what_was_counted_is_read() -> None:
    status = parse_status(encoded(busy, mode="fuse"))
    assert (status.mode, status.has_ended, status.chunk_index) == ("fuse", False, CHUNK_INDEX)
    assert (status.numbers["requests"], status.numbers["errors"]) == (1, 1)
    assert (status.numbers["waits"], status.numbers["waiting"]) == (1, 1)
    assert [(r.pack, r.offset, r.size, r.chunks, r.has_failed) for r in status.requests] == [
        (2, 4096, 1000, 3, False),
        (1, 16, 50, 1, True),
    ]
    assert [(r.offset, r.size, r.process, r.name, r.waits) for r in status.reads] == [
        (0, 4096, 7, b"", False),
        (8192, 4096, 8, b"python3", True),
        (4096, 20, 9, b"sixteen letters!", False),
    ]
    assert status.reads[0].waited_s == 0
    assert 0 <= status.reads[1].waited_s < 60
    assert 0.25 <= status.reads[2].waited_s < 60
    assert (status.fetches.count, status.waits.count) == (2, 1)
    assert 0 <= status.age_s < 60
    assert status.steps == {"begun": 0.0}


def test_the_end_is_said() -> None:
    status = parse_status(encoded(busy, has_ended=True))
    assert status.has_ended
    assert (status.numbers["waits"], status.numbers["waiting"]) == (1, 0)
    assert not any(read.waits for read in status.reads)


def test_texts_say_the_numbers() -> None:
    one = seen(encoded(busy))
    text = "\n".join(iter_lines(one))
    assert "25.0 % cached: 2.05 kB of 8.19 kB, 1 of 4 chunks" in text
    assert "1.00 kB in 1 requests, 0 chunks; 1 requests failed" in text
    assert "1, 0.0 s the longest, of python3 (8)" in text
    assert "fetched 1.00 kB in 1 requests, 1 failed; 3 hits; 1 waiting" in one_line(one)
    facts = as_facts(one)
    assert facts["fetch_seconds"]["counts"][0] == 2
    assert facts["waiting_reads"][0]["process"] == "python3"


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"bootfsCI"),
        (12, b"\0\0"),
        (12, b"\5\0"),
        (14, b"\2\0"),
        (16, b"\xff" * 8),
        (HEADER.size + number_at("listed_requests"), b"\3" + bytes(7)),
        (HEADER.size + number_at("listed_reads"), b"\xff" * 8),
        (HEADER.size + number_at("fetch_ns"), b"\xff" * 8),
        (HEADER.size + COUNTS.size - 8, b"\xff" * 8),
        (HEADER.size + COUNTS.size, b"\xff" * 8),
        (HEADER.size + COUNTS.size + 36, b"\2"),
        (HEADER.size + COUNTS.size + 2 * REQUEST.size, b"\xff" * 8),
        (HEADER.size + COUNTS.size + 2 * REQUEST.size + 16, b"\xff" * 8),
    ],
)
def test_what_cannot_be_is_refused(at: int, value: bytes) -> None:
    data = bytearray(encoded(busy))
    data[at : at + len(value)] = value
    with pytest.raises(FormatError):
        parse_status(bytes(data))


def test_another_version_is_named() -> None:
    data = bytearray(encoded(busy))
    data[8] = 9
    with pytest.raises(UnsupportedVersion, match="version 9"):
        parse_status(bytes(data))


@pytest.mark.parametrize("change", [-1, 1, READ.size, -READ.size])
def test_another_length_is_refused(change: int) -> None:
    data = encoded(busy)
    with pytest.raises(FormatError):
        parse_status(data[:change] if change < 0 else data + bytes(change))


def test_more_than_a_container_writes_is_refused() -> None:
    with pytest.raises(FormatError, match="are no status"):
        parse_status(encoded(busy) + bytes(FILE_LIMIT))


@given(st.binary(max_size=4096))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_status(data)


@given(st.integers(0, 2**32))
def test_damage_is_refused_or_can_be_shown(number: int) -> None:
    random = Random(number)
    data = bytearray(encoded(busy))
    for _ in range(random.randrange(1, 9)):
        data[random.randrange(len(data))] = random.randrange(256)
    try:
        status = parse_status(bytes(data))
    except FormatError:
        return
    times = [x for r in (*status.requests, *status.reads) for x in (r.begun_s,)]
    assert all(map(math.isfinite, [*times, *status.steps.values(), status.age_s]))
    one = seen(bytes(data))
    lines = [*iter_lines(one), one_line(one)]
    assert all(line.isprintable() for line in lines)
    as_facts(one)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"python3", "python3"),
        ("größe".encode(), "größe"),
        (b"\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        (b"\x1b[2J\r\n", r"\x1b[2J\r\n"),
        (b"\xff\x80", r"\xff\x80"),
        ("a\u202eb".encode(), r"a\u202eb"),
        ("\u2028".encode(), r"\u2028"),
        ("\x9b31m".encode(), r"\x9b31m"),
        (b"<b>&", "<b>&"),
    ],
)
def test_a_name_steers_no_terminal(name: bytes, shown: str) -> None:
    assert shown_name(name) == shown


@given(st.binary(max_size=64))
def test_a_name_is_printable_whatever_it_is(name: bytes) -> None:
    assert all(
        unicodedata.category(letter)[0] not in "CZ" or letter == " " for letter in shown_name(name)
    )


def test_quantiles_are_bounds() -> None:
    counts = [0] * (len(BOUNDS_S) + 1)
    counts[2], counts[5], counts[-1] = 50, 49, 1
    histogram = Histogram(tuple(counts), 1.0)
    assert histogram.count == 100
    assert histogram.quantile(0.5) == BOUNDS_S[2]
    assert histogram.quantile(0.51) == BOUNDS_S[5]
    assert histogram.quantile(0.99) == BOUNDS_S[5]
    assert histogram.quantile(1) == math.inf
