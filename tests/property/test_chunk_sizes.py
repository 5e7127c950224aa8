"""Sizes of chunks are checked many at once; a model checks them one by one."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import FormatError
from store.format.chunkindex import _check_sizes
from store.format.packfile import CHUNK_LIMIT

EDGES = (0, 1, 2, CHUNK_LIMIT - 1, CHUNK_LIMIT, CHUNK_LIMIT + 1, (1 << 31) - 1, 1 << 31)
SIZES = st.one_of(st.integers(1, CHUNK_LIMIT), st.sampled_from((*EDGES, (1 << 32) - 1)))
RIGHT = st.tuples(st.integers(1, CHUNK_LIMIT), st.integers(1, CHUNK_LIMIT)).map(sorted).map(tuple)
PAIRS = st.lists(st.one_of(RIGHT, RIGHT, st.tuples(SIZES, SIZES)), max_size=6)


@given(PAIRS)
def test_all_at_once_as_one_by_one(pairs: list[tuple[int, int]]) -> None:
    stored, plain = array("I", [s for s, _ in pairs]), array("I", [p for _, p in pairs])
    if all(0 < s <= p <= CHUNK_LIMIT for s, p in pairs):
        _check_sizes(plain, stored)
    else:
        with pytest.raises(FormatError):
            _check_sizes(plain, stored)
