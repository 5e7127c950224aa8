"""Names and files that somebody else is at while a tree is made: an engine that copies in."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from boot.lease import leased, skeleton
from boot.lease.leased import NoLeases
from boot.lease.leases import is_wanted
from boot.lease.skeleton import NEW_FILE, Builder
from store.format.erofs import Image
from tests.support.stores import StoredImage
from tests.support.trees import make_directory, make_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from store.format.erofs import Inode

pytestmark = pytest.mark.requires("root")
NAME = b"file"


class NewFile:
    """A file that was made just now, and that somebody else has opened since."""

    def __init__(self, path: Path, flags: int) -> None:
        self.fd = os.open(path, NEW_FILE, 0o644)
        self.other = os.open(path, flags)

    def leave_later(self, written: bytes = b"") -> None:
        def leave() -> None:
            time.sleep(0.1)
            if written:
                os.write(self.other, written)
            os.close(self.other)

        threading.Thread(target=leave).start()


def test_what_somebody_writes_meanwhile_is_his(tmp_path: Path) -> None:
    new = NewFile(tmp_path / "file", os.O_WRONLY)
    new.leave_later(b"his")
    with pytest.raises(FileExistsError):
        leased._take_first_lease(new.fd, NAME, are_given=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(new.fd)
    assert (tmp_path / "file").read_bytes() == b"his"


def test_who_only_reads_is_waited_for(tmp_path: Path) -> None:
    new = NewFile(tmp_path / "file", os.O_RDONLY)
    new.leave_later()
    leased._take_first_lease(new.fd, NAME, are_given=True)
    assert not is_wanted(new.fd)
    os.close(new.fd)


@pytest.mark.parametrize(("are_given", "least_s"), [(True, 0.2), (False, 0.0)])
def test_who_stays_leaves_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, are_given: bool, least_s: float
) -> None:
    monkeypatch.setattr(leased, "OPEN_LIMIT_S", 0.2)
    new = NewFile(tmp_path / "file", os.O_RDONLY)
    begun_s = time.monotonic()
    with pytest.raises(NoLeases, match="gives no leases"):
        leased._take_first_lease(new.fd, NAME, are_given=are_given)
    assert time.monotonic() - begun_s >= least_s
    os.close(new.other)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], str]:
    """Give what builds a tree of one file, at whose name something goes when it is looked at."""
    stored = StoredImage(make_directory(file=make_file(b"the image's" * 1000)), tmp_path / "store")
    image = Image(stored.plain_bootstrap)
    place = tmp_path / "root"
    place.mkdir()
    monkeypatch.chdir(tmp_path)

    def build(go_on: Callable[[], None]) -> str:
        (place / "file").touch()

        def make(directory: bytes, name: bytes, path: bytes, inode: Inode) -> None:
            try:
                os.close(os.open(path, NEW_FILE, 0o644))
            except FileExistsError:
                # It is gone before anybody looks what it was.
                os.unlink(path)
                go_on()
                raise
            (place / "file").write_text("made")

        builder = Builder(image, bytes(place), make, None)
        builder.build(list(skeleton.iter_directories(image, image.root_nid, set())))
        return (place / "file").read_text()

    return build


def test_what_comes_to_a_name_that_was_cleared_stays(
    build: Callable[[Callable[[], None]], str], tmp_path: Path
) -> None:
    def copy() -> None:
        # A directory: one that is there stays, whatever the image has.
        threading.Timer(0.1, os.mkdir, [tmp_path / "root/file"]).start()

    with pytest.raises(IsADirectoryError):
        build(copy)


def test_a_name_that_stays_clear_is_made(
    build: Callable[[Callable[[], None]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skeleton, "REPLACED_S", 0.1)
    assert build(lambda: None) == "made"
