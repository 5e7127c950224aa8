from __future__ import annotations

import pytest

from boot.lease.gates import LONGEST, MARKS, PROGRAM, Search, is_gate


def search(*pieces: bytes) -> bool:
    looked = Search()
    for piece in pieces:
        looked.saw(memoryview(piece))
    return looked.has_found


@pytest.mark.parametrize("mark", MARKS)
def test_a_program_with_a_mark_is_found_wherever_its_pieces_are_cut(mark: bytes) -> None:
    data = PROGRAM + bytes(100) + mark + bytes(100)
    for cut in range(len(data) + 1):
        assert search(data[:cut], data[cut:])
    assert search(*(data[at : at + 1] for at in range(len(data))))
    assert search(PROGRAM + mark)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PROGRAM,
        b"#!/bin/sh\n" + MARKS[0],
        PROGRAM[1:] + MARKS[0],
        PROGRAM + MARKS[0][:-1] + b"X",
        PROGRAM + bytes(1000) + MARKS[1][1:],
    ],
)
def test_no_other_is(data: bytes) -> None:
    assert not search(data)
    assert not search(*(data[at : at + 1] for at in range(len(data))))


def test_little_is_kept_of_what_was_told() -> None:
    looked = Search()
    looked.saw(PROGRAM + bytes(1 << 20))
    assert len(looked._begin) <= LONGEST
    other = Search()
    other.saw(bytes(1 << 20))
    other.saw(bytes(1 << 20))
    assert len(other._begin) <= LONGEST


def test_names_are_without_versions_and_of_programs() -> None:
    gates = (b"ruby", b"grep")
    assert is_gate(b"ruby3.1", 0o755, gates) and is_gate(b"grep", 0o100755, gates)
    assert not is_gate(b"ruby", 0o644, gates)
    assert not is_gate(b"rubygems", 0o755, gates)
