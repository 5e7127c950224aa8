"""A directory apart from others on the disk, where a file system knows such a thing."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from boot.apart import _FLAGS, _GET_FLAGS, _TOP, make_apart


def is_flagged(directory: Path) -> bool:
    """Whether what is made there goes where its name says (ext4's Orlov allocator)."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flags = bytearray(_FLAGS.size)
        fcntl.ioctl(fd, _GET_FLAGS, flags)
    finally:
        os.close(fd)
    return bool(_FLAGS.unpack(flags)[0] & _TOP)


def test_each_has_a_name_of_its_own_in_a_directory_with_the_flag(tmp_path: Path) -> None:
    made = [made for _ in range(2) if (made := make_apart(os.fsencode(tmp_path))) is not None]
    if not made:
        # Another file system: then there is nothing, and no error.
        assert list(tmp_path.iterdir()) == []
        return
    assert sorted(map(os.fsencode, tmp_path.iterdir())) == sorted(made)
    assert is_flagged(tmp_path)
    assert not is_flagged(Path(os.fsdecode(made[0])))
    assert [os.stat(path).st_mode & 0o777 for path in made] == [0o700, 0o700]


def test_where_there_is_no_such_thing_nothing_is_made() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        assert make_apart(os.fsencode(place)) is None
        assert os.listdir(place) == []


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_apart(os.fsencode(tmp_path / "none"))
