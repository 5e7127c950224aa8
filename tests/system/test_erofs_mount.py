"""The kernel and erofs-utils see in the bootstraps of random trees what the trees hold."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from converter.tree import Content, Node, Segment, empty_root
from tests.support.dump import compare, dump_directory, dump_tree
from tests.support.erofsmount import mounted_erofs, write_image
from tests.support.trees import MemoryBlob, make_directory, make_file, make_link, random_tree

pytestmark = [pytest.mark.system, pytest.mark.requires("root", "erofs", "fsck.erofs")]


@pytest.fixture
def disk() -> Iterator[Path]:
    """Yield a directory on a file system that may back a mount: not tmpfs, not overlayfs."""
    place = Path("/var/tmp") / f"bootfs-erofs-{os.getpid()}"
    place.mkdir()
    yield place
    shutil.rmtree(place)


def assert_kernel_agrees(root: Node, disk: Path) -> None:
    image, mount_point = disk / "image.erofs", disk / "mnt"
    write_image(image, root)
    checked = subprocess.run(["fsck.erofs", image], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    mount_point.mkdir(exist_ok=True)
    with mounted_erofs(image, mount_point):
        assert compare(dump_tree(root), dump_directory(mount_point)) == []


@pytest.mark.parametrize("seed", range(30))
def test_kernel_shows_random_tree(seed: int, disk: Path) -> None:
    assert_kernel_agrees(random_tree(Random(seed)), disk)


def test_empty_image(disk: Path) -> None:
    assert_kernel_agrees(empty_root(), disk)


def test_image_of_one_file(disk: Path) -> None:
    assert_kernel_agrees(make_directory(hello=make_file(b"hello\n")), disk)


def test_directory_of_100000_entries(disk: Path) -> None:
    root = make_directory()
    for number in range(100_000):
        root.children[b"entry-%d" % number] = make_file(b"")
    assert_kernel_agrees(root, disk)


def test_names_are_found_in_directories_of_every_size(disk: Path) -> None:
    """Sizes step over the ends of blocks and of what fits behind an inode."""
    root = make_directory()
    shared = make_file(b"")
    for size in range(300):
        names = [b"%03d" % number + b"x" * 12 for number in range(size)]
        root.children[b"d%d" % size] = make_directory()
        root.children[b"d%d" % size].children = dict.fromkeys(names, shared)
    image, mount_point = disk / "image.erofs", disk / "mnt"
    write_image(image, root)
    mount_point.mkdir()
    with mounted_erofs(image, mount_point):
        for path, node in root.children.items():
            below = os.fsencode(mount_point) + b"/" + path
            assert sorted(os.listdir(below)) == sorted(node.children)
            for name in node.children:
                os.lstat(below + b"/" + name)
            assert not os.path.lexists(below + b"/" + b"zzz")
            assert not os.path.lexists(below + b"/" + b"000")


def test_links_of_every_length_around_the_inline_limit(disk: Path) -> None:
    root = make_directory()
    for size in (*range(1, 100), *range(3900, 4096)):
        root.children[b"%d" % size] = make_link(b"t" * size)
        root.children[b"x%d" % size] = make_link(b"u" * size)
        root.children[b"x%d" % size].xattrs = {b"trusted.x": b"v" * 100}
    assert_kernel_agrees(root, disk)


def test_attributes_at_their_limits(disk: Path) -> None:
    second = 1_000_000_000
    root = make_directory()
    for number, mtime_ns in enumerate(
        (0, -1, -second, -second - 1, (1 << 31) * second, (1 << 40) * second + 999_999_999)
    ):
        node = make_file(b"x")
        node.mtime_ns = mtime_ns
        root.children[b"time%d" % number] = node
    for number, device in enumerate(((0, 0), (1, 3), (0xFFF, 0xFFFFF), (0xFFF, 0), (0, 0xFFFFF))):
        root.children[b"char%d" % number] = Node(stat.S_IFCHR | 0o600, device=device)
        root.children[b"block%d" % number] = Node(stat.S_IFBLK | 0o600, device=device)
    largest = make_file(b"xattrs")
    largest.xattrs = {b"user.%d" % number: bytes([number]) * 60_000 for number in range(4)}
    root.children[b"xattrs"] = largest
    assert_kernel_agrees(root, disk)


def test_bytes_at_the_far_end_of_a_terabyte(disk: Path) -> None:
    """Block numbers above 2^28 reach the right bytes; holes read as zeros."""
    size = 1 << 40
    end = Segment(size - 6, 6, MemoryBlob(b"at end"), 0)
    root = make_directory(far=Node(stat.S_IFREG | 0o644, content=Content(size, (end,))))
    root.children[b"behind"] = make_file(b"behind")
    image, mount_point = disk / "image.erofs", disk / "mnt"
    write_image(image, root)
    mount_point.mkdir()
    with mounted_erofs(image, mount_point), (mount_point / "far").open("rb") as far:
        assert far.seek(0, os.SEEK_END) == size
        far.seek(size - 10)
        assert far.read() == bytes(4) + b"at end"
        assert (mount_point / "behind").read_bytes() == b"behind"
