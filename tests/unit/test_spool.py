"""The spool keeps free space free and leaves nothing behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from converter.spool import FileBlob, Spool, os_errors_at
from store.errors import (
    AccessDenied,
    BootfsError,
    NotFound,
    SizeMismatch,
    StorageFull,
    UsageError,
)


def test_blob_gives_exactly_what_is_asked(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        blob = spool.store("x", b"0123456789")
        assert blob.pread(2, 3) == b"234"
        assert blob.pread(10, 0) == b""
        assert b"".join(blob.iter_pieces(3)) == b"0123456789"
        part = blob.part("y", 4, 4)
        assert part.pread(1, 3) == b"567"
        for offset, size in ((8, 3), (-1, 1), (0, 11)):
            with pytest.raises(SizeMismatch, match=r"^x: "):
                blob.pread(offset, size)
        with pytest.raises(SizeMismatch, match=r"^y: "):
            part.pread(2, 3)
        with pytest.raises(SizeMismatch):
            part.part("z", 3, 2)


def test_file_that_shrinks_under_a_blob_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with Spool(tmp_path) as spool:
        blob = spool.open_file(path)
        os.truncate(path, 4)
        with pytest.raises(SizeMismatch):
            blob.pread(2, 4)


def test_directory_is_gone_when_closed_and_files_have_no_names(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store("x", b"data")
    assert list(spool.path.iterdir()) == []
    spool.close()
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_failed_writing_keeps_nothing(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ZeroDivisionError), spool.writing("x") as file:
            file.write(b"data")
            raise ZeroDivisionError
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["missing", "."])
def test_only_files_are_opened(tmp_path: Path, name: str) -> None:
    with Spool(tmp_path) as spool, pytest.raises(NotFound, match=str(tmp_path)):
        spool.open_file(tmp_path / name)


def test_reserve_stops_writing_before_the_disk_is_full(tmp_path: Path) -> None:
    space = os.statvfs(tmp_path)
    with (
        Spool(tmp_path, reserve=space.f_blocks * space.f_frsize) as spool,
        pytest.raises(StorageFull, match=r"bytes are free and .* are kept"),
    ):
        spool.store("x", b"data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.ENOENT, NotFound),
        (errno.EROFS, AccessDenied),
        (errno.ENAMETOOLONG, UsageError),
        (errno.EIO, BootfsError),
        (errno.EMFILE, BootfsError),
    ],
)
def test_every_refusal_of_the_system_becomes_an_error_of_ours(
    number: int, kind: type[BootfsError]
) -> None:
    with pytest.raises(BootfsError) as raised, os_errors_at(Path("/some/file"), "cannot be read"):
        raise OSError(number, os.strerror(number))
    assert type(raised.value) is kind
    assert str(raised.value).startswith("/some/file: ") and "; " in str(raised.value)


def test_a_file_that_cannot_be_read_is_named() -> None:
    handle = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(UsageError, match=r"^x: cannot be read: Is a directory"):
            FileBlob(handle, "x", 0, 10).pread(0, 10)
    finally:
        os.close(handle)
