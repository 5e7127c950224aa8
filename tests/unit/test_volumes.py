"""A copy into a new volume that was cut off at any point is finished by the next one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from boot import volumes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Give a directory as an image may have it at a volume's place."""
    root = tmp_path / "source"
    (root / "directory" / "deep").mkdir(parents=True)
    for name in ("first", "second", "directory/inner", "directory/deep/inmost"):
        (root / name).write_text(f"content of {name}\n")
    (root / "link").symlink_to("first")
    os.link(root / "first", root / "hard")
    (root / "directory").chmod(0o750)
    os.utime(root / "directory", (1e9, 1e9))
    return root


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Give a volume in which somebody has begun."""
    root = tmp_path / "volume"
    (root / ".bootfs-filling").mkdir(parents=True)
    return root


def fill(source: Path, volume: Path, *points: bytes) -> None:
    """Do what a boot does once it has locked the stage."""
    place = os.fsencode(source)
    volumes._fill_staged(
        os.fsencode(volume),
        lambda part: volumes._copy_directory(place, part, {}),
        [*points],
        lambda path: volumes._link_or_directory(place + b"/" + path),
    )


def listing(root: Path) -> list[tuple[str, int, int, bytes]]:
    """Give name, mode, time and content of all that is in a directory."""
    found = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found.append((str(path.relative_to(root)), status.st_mode, status.st_mtime_ns, content))
    return found


def test_a_new_volume_gets_all(source: Path, volume: Path) -> None:
    fill(source, volume)
    assert listing(volume) == listing(source)
    assert (volume / "first").stat().st_ino == (volume / "hard").stat().st_ino
    assert volume.stat().st_mtime_ns == source.stat().st_mtime_ns


def test_what_is_beneath_a_mount_is_neither_looked_at_nor_changed(
    source: Path, volume: Path
) -> None:
    (volume / "directory").mkdir(0o700)
    (volume / "directory" / "of the mount").write_text("somebody's\n")
    (volume / "second").write_text("somebody's\n")
    place = os.fsencode(source)
    mounts = [b"directory", b"second"]
    volumes._fill_staged(
        os.fsencode(volume),
        lambda part: volumes._copy_directory(place, part, {}),
        mounts,
        lambda path: volumes._link_or_directory(place + b"/" + path),
        mounts,
    )
    assert os.listdir(volume / "directory") == ["of the mount"]
    assert (volume / "directory").stat().st_mode & 0o777 == 0o700
    assert (volume / "second").read_text() == "somebody's\n"
    assert (volume / "first").read_text() == "content of first\n"
    assert not (volume / ".bootfs-filling").exists()


def test_a_copy_in_parts_is_made_anew(source: Path, volume: Path) -> None:
    part = volume / ".bootfs-filling" / "part"
    (part / "directory").mkdir(parents=True)
    (part / "first").write_text("cont")
    (part / "of another image").write_text("x")
    fill(source, volume)
    assert listing(volume) == listing(source)


def test_a_whole_copy_is_moved_on(source: Path, volume: Path) -> None:
    whole = volume / ".bootfs-filling" / "whole"
    whole.mkdir()
    (whole / "second").write_text("still to be moved\n")
    (volume / "first").write_text("moved already\n")
    fill(source, volume)
    assert sorted(os.listdir(volume)) == ["first", "second"]
    assert (volume / "first").read_text() == "moved already\n"
    assert (volume / "second").read_text() == "still to be moved\n"


def test_what_others_put_there_stays_as_it_is(source: Path, volume: Path) -> None:
    part = volume / ".bootfs-filling" / "part"
    part.mkdir()
    (part / "first").write_text("cont")
    (volume / "first").write_text("mine\n")
    fill(source, volume)
    assert os.listdir(volume) == ["first"]
    assert (volume / "first").read_text() == "mine\n"


def test_what_others_put_there_while_it_was_moved_stays_too(source: Path, volume: Path) -> None:
    whole = volume / ".bootfs-filling" / "whole"
    whole.mkdir()
    (whole / "first").write_text("ours\n")
    (whole / "second").write_text("ours\n")
    (volume / "first").write_text("mine\n")
    fill(source, volume)
    assert sorted(os.listdir(volume)) == ["first", "second"]
    assert (volume / "first").read_text() == "mine\n"


def test_mount_points_are_no_content(source: Path, volume: Path) -> None:
    (volume / "directory" / "deep").mkdir(parents=True)
    (volume / "second").write_bytes(b"")
    node = (volume / "second").stat().st_ino
    fill(source, volume, b"directory/deep", b"second")
    assert listing(volume) == listing(source)
    # What is mounted upon cannot be replaced.
    assert (volume / "second").stat().st_ino == node


def test_what_the_engine_took_from_the_boot_image_is_not_content(
    source: Path, volume: Path
) -> None:
    (volume / "directory" / "deep").mkdir(parents=True)
    (volume / "link").symlink_to("first")
    fill(source, volume)
    assert listing(volume) == listing(source)


@pytest.mark.parametrize("name", ["link", "unknown"])
def test_links_of_others_are_content(source: Path, volume: Path, name: str) -> None:
    (volume / name).symlink_to("elsewhere")
    fill(source, volume)
    assert [path.name for path in volume.iterdir()] == [name]
