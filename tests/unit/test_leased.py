"""Names and files that somebody else is at while a tree is made: an engine that copies in."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING, ClassVar, cast

import pytest

from boot import apart
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

    from boot.lease.copied import Copied
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


class Untouched:
    """A root into which nothing has been copied."""

    placeholders: ClassVar[dict[bytes, set[bytes]]] = {}

    def has(self, _path: bytes) -> bool:
        return True


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Give a root with one directory, and the stage for it."""
    root, stage = tmp_path / "root", tmp_path / "stage"
    (root / "there").mkdir(parents=True)
    stage.mkdir()
    monkeypatch.setattr(skeleton, "STAGE", bytes(stage))
    monkeypatch.chdir(tmp_path)
    return root, stage


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """Give an image of a few directories."""
    there = make_directory(new=make_directory(below=make_directory()))
    tree = make_directory(there=there, top=make_directory())
    return Image(StoredImage(tree, tmp_path / "store").plain_bootstrap)


def build_directories(root: Path, image: Image) -> None:
    directories = list(skeleton.iter_directories(image, image.root_nid, set()))
    builder = Builder(image, bytes(root), lambda *_: None, cast("Copied", Untouched()))
    builder.build(directories)
    builder.finish(directories)


def group_of(path: Path) -> int:
    """Give the group of 8,192 inodes, as mkfs makes them, that an inode of ext4 is in."""
    return (path.stat().st_ino - 1) // 8192


def test_new_directories_lie_apart_from_those_of_earlier_containers(
    places: tuple[Path, Path], image: Image, tmp_path: Path
) -> None:
    root, stage = places
    build_directories(root, image)
    made = [root / name for name in ("top", "there/new", "there/new/below")]
    assert all(path.is_dir() for path in made)
    assert not any(stage.iterdir())
    kind = subprocess.run(["stat", "-fc%T", root], capture_output=True, text=True, check=True)
    if kind.stdout == "ext2/ext3\n":
        groups = {group_of(path) for path in made}
        for _ in range(3):
            again = tmp_path / f"again{len(groups)}"
            (again / "there").mkdir(parents=True)
            build_directories(again, image)
            groups.add(group_of(again / "there/new/below"))
        assert len(groups) > 1


def test_a_storage_driver_may_move_no_directories(
    places: tuple[Path, Path], image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, stage = places

    def refuse(_from: bytes, _to: bytes) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", refuse)
    build_directories(root, image)
    assert (root / "there/new/below").is_dir()
    assert (root / "top").is_dir()
    assert not any(stage.iterdir())


def test_what_a_start_that_was_cut_off_left_is_cleared(
    places: tuple[Path, Path], image: Image
) -> None:
    root, stage = places
    (stage / "0123456789abcdef/new").mkdir(parents=True)
    (stage / "0123456789abcdef/0").write_text("a program")
    build_directories(root, image)
    assert not any(stage.iterdir())


def test_where_nothing_lies_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int, _request: int, _argument: object) -> None:
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert apart.make_apart(bytes(tmp_path)) is None
    assert not any(tmp_path.iterdir())


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], str]:
    """Give what builds a tree of one file, at whose name something goes when it is looked at."""
    tree = make_directory(file=make_file(b"the image's" * 1000))
    image = Image(StoredImage(tree, tmp_path / "store").plain_bootstrap)
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
