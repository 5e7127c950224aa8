"""Profiles of any traces: each page once, in an order that each trace agrees with."""

from __future__ import annotations

from array import array
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from store.format.chunkindex import BLOCK, HOLE
from store.format.profile import ORIGINS, Profile, parse_profiles
from store.format.trace import ENTRY, Trace, encode_trace_head, parse_trace
from store.write.profilebuild import build_profile, chunks_of, merge_profiles, merge_reads
from store.write.profiles import encode_profiles
from tests.support.stores import make_index

IMAGE = b"\5" * 32
PAGES = 40
NUMBER = st.integers(0, 0xFFFFFFFF)
READ = st.tuples(st.integers(0, PAGES + 5), st.integers(0, 12))
SERIES = st.lists(st.lists(READ, max_size=12), max_size=5)
ANY_READ = st.tuples(st.integers(505, 520), st.integers(0, 9)) | st.tuples(NUMBER, NUMBER)
WORDS = st.lists(st.binary(max_size=9).filter(lambda word: b"\0" not in word), max_size=4)


def pages_of(reads: list[tuple[int, int]]) -> list[int]:
    return [page for first, count in reads for page in range(first, first + count)]


def first_uses(reads: list[tuple[int, int]]) -> list[int]:
    """Return the pages of the image that a series reads, in the order of their first use."""
    return list(dict.fromkeys(page for page in pages_of(reads) if page < PAGES))


@given(SERIES)
def test_every_page_of_every_trace_is_there_once(series: list[list[tuple[int, int]]]) -> None:
    merged = pages_of(merge_reads(series, PAGES))
    assert len(set(merged)) == len(merged)
    assert set(merged) == {page for reads in series for page in first_uses(reads)}


@given(SERIES)
def test_what_the_first_trace_read_stays_in_its_order(
    series: list[list[tuple[int, int]]],
) -> None:
    merged = pages_of(merge_reads(series, PAGES))
    first = first_uses(series[0]) if series else []
    assert [page for page in merged if page in set(first)] == first


@given(st.lists(st.lists(st.integers(0, 20), max_size=12), max_size=5))
def test_what_a_trace_brings_stands_behind_what_it_used_before(series: list[list[int]]) -> None:
    reads = [[(page, 1) for page in pages] for pages in series]
    for number, pages in enumerate(series):
        known = set(pages_of(merge_reads(reads[:number], PAGES)))
        merged = pages_of(merge_reads(reads[: number + 1], PAGES))
        for before, page in pairwise(dict.fromkeys(pages)):
            assert page in known or merged.index(before) < merged.index(page)


@given(SERIES)
def test_a_trace_that_is_known_changes_nothing(series: list[list[tuple[int, int]]]) -> None:
    merged = merge_reads(series, PAGES)
    assert merge_reads([merged, *series], PAGES) == merged


@given(st.lists(ANY_READ, max_size=30), st.lists(ANY_READ, max_size=30))
def test_hostile_traces_leave_the_image_nowhere(
    one: list[tuple[int, int]], other: list[tuple[int, int]]
) -> None:
    index = make_index()
    first, second = (
        build_profile(
            index, "a", [b"a"], [Trace(IMAGE, [b"a"], 0, [(0, *read) for read in reads])], 1
        )
        for reads in (one, other)
    )
    end = (index.data_start + index.data_size) // BLOCK
    for profile in (first, second, merge_profiles(index, first, second)):
        assert all(0 <= at < at + count <= end for at, count in profile.reads)
        read = set(pages_of(profile.reads))
        needed = {
            chunk
            for place, chunk in enumerate(index.place_chunks)
            if chunk != HOLE and (index.data_start + index.starts[place]) // BLOCK in read
        }
        assert sorted(profile.chunks) == sorted(needed)
        assert profile.chunks == chunks_of(index, profile.reads)


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    name = st.text(min_size=1, max_size=16).filter(lambda text: text.isprintable())
    profile = Profile(draw(name), [word for word in draw(WORDS) if word])
    profile.origin = draw(st.integers(0, len(ORIGINS) - 1))
    profile.traces = draw(NUMBER)
    profile.reads = draw(st.lists(st.tuples(NUMBER, NUMBER), max_size=20))
    profile.chunks = array("I", draw(st.lists(NUMBER, max_size=20)))
    profile.hot_pack = draw(st.binary(min_size=32, max_size=32))
    profile.hot_pack_size = draw(st.integers(0, 1 << 32))
    return profile


@given(st.lists(profiles(), max_size=5))
def test_a_document_says_what_was_written(written: list[Profile]) -> None:
    found = parse_profiles(encode_profiles(IMAGE, written), IMAGE, "it")
    for one, other in zip(found, written, strict=True):
        for name in Profile.__slots__:
            assert getattr(one, name) == getattr(other, name)


@given(WORDS, NUMBER, st.lists(st.tuples(NUMBER, NUMBER, NUMBER)), st.binary(max_size=11))
def test_a_trace_says_what_was_written(
    command: list[bytes], begun_s: int, reads: list[tuple[int, int, int]], cut: bytes
) -> None:
    body = b"".join(ENTRY.pack(*read) for read in reads)
    trace = parse_trace(encode_trace_head(IMAGE, command, begun_s) + body + cut, "it")
    assert (trace.image, trace.begun_s, trace.reads) == (IMAGE, begun_s, reads)
    # No word at all, and one that is empty, are the same.
    assert trace.command == (command if command != [b""] else [])
