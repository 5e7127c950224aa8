"""Profiles made of traces: their order, their chunks, and what hostile traces can do."""

from __future__ import annotations

from array import array

import pytest

from store.errors import IntegrityError, UsageError
from store.format.chunkindex import BLOCK
from store.format.profile import BODY_LIMIT, ORIGINS, READ_LIMIT, Profile, parse_profiles
from store.format.trace import Trace
from store.write import profilebuild
from store.write.profilebuild import (
    build_profile,
    check_trace,
    chunks_of,
    merge_profiles,
    merge_reads,
)
from store.write.profiles import encode_profiles
from tests.support.stores import make_index

FIRST = (2 << 20) // BLOCK
"""First page of the data region of `make_index`, which has six pages."""
IMAGE = b"\1" * 32
Read = tuple[int, int]


def trace(*reads: Read, command: list[bytes] | None = None) -> Trace:
    return Trace(IMAGE, command or [b"/bin/a"], 0, [(0, first, pages) for first, pages in reads])


def built(*traces: Trace, name: str = "a") -> Profile:
    return build_profile(make_index(), name, [b"/bin/a"], traces, 1)


def test_reads_stay_in_order_and_chunks_come_in_order_of_use() -> None:
    """Of pages 5, 0 and 4: chunks 2, 0 and 0 again."""
    profile = built(trace((FIRST + 5, 1), (0, 4), (FIRST, 1), (FIRST + 4, 1)))
    assert profile.reads == [(FIRST + 5, 1), (0, 4), (FIRST, 1), (FIRST + 4, 1)]
    assert list(profile.chunks) == [2, 0]
    assert (profile.traces, profile.origin, profile.hot_pack_size) == (1, 1, 0)


def test_a_hole_and_metadata_have_no_chunk() -> None:
    profile = built(trace((0, 60), (FIRST + 2, 2)))
    assert profile.reads == [(0, 60), (FIRST + 2, 2)] and not profile.chunks


@pytest.mark.parametrize(
    ("series", "merged"),
    [
        ([[(1, 1), (3, 1)], [(1, 1), (2, 1), (3, 1)]], [(1, 1), (2, 1), (3, 1)]),
        ([[(9, 1), (3, 1)], [(1, 1), (9, 1), (2, 1)]], [(1, 1), (9, 1), (2, 1), (3, 1)]),
        ([[(5, 4)], [(0, 20)]], [(0, 5), (5, 4), (9, 11)]),
        ([[(0, 2), (10, 2)], [(1, 10), (30, 1)]], [(0, 2), (2, 8), (10, 2), (30, 1)]),
        ([[(4, 4), (6, 4), (2, 20)]], [(4, 4), (8, 2), (2, 2), (10, 12)]),
        ([[(1, 0), (100, 5), (98, 9)], [], [(99, 1)]], [(98, 2)]),
        ([[], []], []),
    ],
)
def test_series_are_merged_in_order(series: list[list[Read]], merged: list[Read]) -> None:
    assert merge_reads(series, 100) == merged


def test_a_trace_that_came_later_goes_where_it_belongs() -> None:
    old = built(trace((0, 1), (8, 1), (16, 1)))
    new = built(trace((8, 1), (12, 1), (20, 1)), name="other")
    both = merge_profiles(make_index(), old, new)
    assert both.reads == [(0, 1), (8, 1), (12, 1), (20, 1), (16, 1)]
    assert (both.name, both.traces) == ("a", 2)


def test_a_merged_profile_is_for_the_words_that_both_commands_begin_with() -> None:
    index = make_index()

    def command(*words: bytes) -> Profile:
        return build_profile(index, "a", list(words), [trace((0, 1))], 1)

    def merged(one: Profile, other: Profile) -> list[bytes]:
        return merge_profiles(index, one, other).command

    assert merged(command(b"p", b"a", b"1"), command(b"p", b"a", b"2")) == [b"p", b"a"]
    assert merged(command(b"p", b"a"), command(b"p", b"a")) == [b"p", b"a"]
    assert merged(command(b"p", b"a"), command(b"q")) == [b"p", b"a"]


def test_what_was_measured_stays_measured() -> None:
    index = make_index()
    analysis, recording = ORIGINS.index("analysis"), ORIGINS.index("recording")
    reckoned = build_profile(index, "a", [b"a"], [trace((0, 1))], analysis)
    measured = build_profile(index, "a", [b"a"], [trace((1, 1))], recording)
    for one, other in ((reckoned, measured), (measured, reckoned)):
        assert merge_profiles(index, one, other).origin == recording


def test_pages_beyond_the_image_are_left_out() -> None:
    end = FIRST + 6
    hostile = [(end, 1), (0xFFFFFFFF, 0xFFFFFFFF), (end - 1, 0xFFFFFFFF), (3, 0)]
    profile = built(trace(*hostile))
    assert profile.reads == [(end - 1, 1)] and list(profile.chunks) == [2]


def test_a_trace_that_names_everything_again_and_again_costs_little() -> None:
    """Each read meets all that there is; what it meets becomes one."""
    apart = [(n * 4, 1) for n in range(20_000)]
    everything = [(0, 0xFFFFFFFF)] * 40_000
    merged = merge_reads([apart, everything, apart[::-1]], 1 << 30)
    assert len(merged) == 40_000 and sum(pages for _, pages in merged) == 1 << 30


def test_a_profile_has_so_many_reads_at_most() -> None:
    apart = [(n * 2, 1) for n in range(READ_LIMIT)]
    merged = merge_reads([apart, [(1, 1), (3, 1)]], 1 << 30)
    assert len(merged) == READ_LIMIT


def test_a_hot_pack_has_so_many_bytes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_index()
    reads = [(FIRST + 5, 1), (FIRST + 1, 1), (FIRST, 1)]
    assert chunks_of(index, reads) == array("I", [2, 1, 0])
    monkeypatch.setattr(profilebuild, "PLAIN_LIMIT", 2 * BLOCK)
    assert chunks_of(index, reads) == array("I", [2, 1])
    monkeypatch.setattr(profilebuild, "CHUNK_LIMIT", 1)
    assert chunks_of(index, reads) == array("I", [2])


@pytest.mark.parametrize("name", ["", "x" * 65, "é" * 33, "a\nb", "\x1b[1m"])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        built(trace(), name=name)
    with pytest.raises(UsageError, match="means none"):
        built(trace(), name="off")


def test_a_long_command_is_kept_as_it_will_be_read() -> None:
    profile = build_profile(make_index(), "a", [b"p", b"x" * 5000, b"y"], [trace()], 0)
    assert profile.command == [b"p"]


def test_a_small_document_takes_little_memory() -> None:
    """As large as one may be, of the smallest reads, which compress to almost nothing."""
    import tracemalloc

    full = Profile("a", [])
    full.reads = [(1 << 20, 1 << 20)] * (BODY_LIMIT // 8 // 16)
    while len(full.reads) * 8 * 16 > BODY_LIMIT - 16 * 100:
        full.reads.pop()
    document = encode_profiles(IMAGE, [full] * 16)
    assert len(document) < 10_000
    tracemalloc.start()
    try:
        assert len(parse_profiles(document, IMAGE, "it")) == 16
        assert tracemalloc.get_traced_memory()[1] < 20 * BODY_LIMIT
    finally:
        tracemalloc.stop()


def test_a_trace_of_another_image_says_of_which() -> None:
    check_trace(trace(), IMAGE, "t")
    with pytest.raises(IntegrityError, match="t: a trace of another image, blake3:0101"):
        check_trace(trace(), b"\2" * 32, "t")
