"""A running container's root, byte for byte and attribute for attribute the tree it was made of."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
import zstandard

from bench.images import IMAGES, build_image
from store.write.backends import open_backend
from store.write.catalogue import read_catalogue
from store.write.packwriter import FILTER_LEVEL
from tests.support import converted
from tests.support.access import Identity, access_of
from tests.support.bootedtree import ENGINE_PLACES, MODES, convert_tree, in_each_mode, root_of
from tests.support.dump import Entry, compare, dump_directory, dump_tree
from tests.support.trees import (
    FEATURES,
    acl_of,
    make_directory,
    make_file,
    make_link,
    random_tree,
)
from tests.support.treetar import without_what_tars_lack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converter.tree import Node
    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Engine

pytestmark = pytest.mark.system


@pytest.fixture
def disk() -> Iterator[Path]:
    """Yield a directory on a file system of the kernel's own that holds what an image may."""
    place = Path("/var/tmp") / f"bootfs-tree-{os.getpid()}"
    place.mkdir()
    yield place
    shutil.rmtree(place)


def unpack(layer: bytes, place: Path) -> None:
    """Unpack a layer as tar does it, with all attributes that the disk has room for."""
    attributes = ("--numeric-owner", "-p", "--xattrs", "--xattrs-include=*")
    subprocess.run(
        ["tar", "-x", *attributes, "-C", str(place)], input=layer, capture_output=True, check=True
    )


def assert_root_is(tree: Node, image: Converted, engine: Engine) -> None:
    # Engines take nothing from a layer for the root itself, and put a directory in for /etc.
    ignored = {b"", b"/etc"} - ({b"/etc"} & dump_tree(tree).keys())
    expected = {path: entry for path, entry in dump_tree(tree).items() if path not in ignored}
    for mode, root in in_each_mode(image, engine):
        found = dump_when_filled(root)
        found = {path: entry for path, entry in found.items() if path not in ignored}
        wanted = expected
        if mode in ("lease", "eager"):
            wanted = {path: without_privileged(entry) for path, entry in expected.items()}
        assert compare(wanted, found, directory_links=False) == [], mode


def dump_when_filled(root: str) -> dict[bytes, Entry]:
    """Dump a container's root; twice, since a file's times are others while it is filled."""
    dump_directory(root, skip=ENGINE_PLACES)
    return dump_directory(root, skip=ENGINE_PLACES)


def without_privileged(entry: Entry) -> Entry:
    """Leave out the attributes that only who has SYS_ADMIN may set."""
    left = tuple(
        (name, value)
        for name, value in entry.xattrs
        if not name.startswith((b"trusted.", b"security.")) or name == b"security.capability"
    )
    return dataclasses.replace(entry, xattrs=left)


@pytest.mark.parametrize("seed", range(6))
def test_random_trees(
    engine: Engine, conversions: Conversions, pause: Path, tmp_path: Path, seed: int
) -> None:
    tree = without_what_tars_lack(random_tree(Random(seed), huge=False))
    image, _ = convert_tree(conversions, tree, pause, tmp_path)
    assert_root_is(tree, image, engine)


def test_a_tree_with_everything_in_it(
    engine: Engine, conversions: Conversions, pause: Path, tmp_path: Path, disk: Path
) -> None:
    """Bytes, attributes, and what others may do with them, the disk's file system the judge."""
    tree = make_directory()
    random = Random(1)
    for name, add in FEATURES.items():
        if name != "huge":
            add(random, [tree])
    tree = without_what_tars_lack(tree)
    image, layer = convert_tree(conversions, tree, pause, tmp_path)
    assert_root_is(tree, image, engine)

    unpack(layer, disk)
    paths = [path for path in dump_tree(tree) if path]
    somebody = (Identity(4242, 4242), Identity(1000, 100), Identity(65534, 65537, (0, 100)))
    blocks = {}
    for mode, root in in_each_mode(image, engine):
        for identity in somebody:
            expected = access_of(str(disk), identity, paths)
            assert len(set(expected.values())) > 5
            assert access_of(root, identity, paths) == expected, mode
        blocks[mode] = {path: os.lstat(root.encode() + path).st_blocks for path in paths}
        with pytest.raises(OSError, match="File name too long"):
            os.lstat(f"{root}/{'n' * 256}")
    # How much room something takes is each file system's own matter; du should not depend on it.
    assert blocks["erofs"] == blocks["fuse"]


def test_filtered_code(
    engine: Engine,
    conversions: Conversions,
    pause: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the runtime layer's own machine code, or its Python, can have put it back."""
    monkeypatch.setattr(converted, "LEVEL", FILTER_LEVEL)
    library = Path(str(zstandard.backend_c.__file__)).read_bytes()[: 1 << 20]
    tree = make_directory(code=make_file(library), text=make_file(b"no code\n" * 9999))
    image, _ = convert_tree(conversions, tree, pause, tmp_path)
    assert_root_is(tree, image, engine)
    assert len(read_catalogue(open_backend(str(conversions.directory))).with_filtered) == 1


def test_acls_are_enforced(
    engine: Engine, conversions: Conversions, pause: Path, tmp_path: Path
) -> None:
    nobody = 0xFFFFFFFF
    # Owner, named user, owning group, named group, mask, others.
    only_4242 = acl_of(
        (0x01, 6, nobody), (0x02, 4, 4242), (0x04, 0, nobody), (0x10, 4, nobody), (0x20, 0, nobody)
    )
    not_4242 = acl_of(
        (0x01, 6, nobody), (0x02, 0, 4242), (0x04, 4, nobody), (0x10, 4, nobody), (0x20, 4, nobody)
    )
    masked = acl_of(
        (0x01, 6, nobody), (0x04, 4, nobody), (0x08, 4, 4343), (0x10, 0, nobody), (0x20, 0, nobody)
    )
    of_group = acl_of(
        (0x01, 7, nobody), (0x04, 0, nobody), (0x08, 5, 4343), (0x10, 5, nobody), (0x20, 0, nobody)
    )
    tree = make_directory(
        user=make_file(b"for 4242", mode=0o640),
        refused=make_file(b"for all but 4242", mode=0o644),
        masked=make_file(b"for nobody", mode=0o600),
        group=make_directory(inside=make_file(b"for 4343")),
        link=make_link(b"user"),
    )
    tree.children[b"group"].mode = stat.S_IFDIR | 0o750
    acls = {b"user": only_4242, b"refused": not_4242, b"masked": masked, b"group": of_group}
    for name, acl in acls.items():
        tree.children[name].xattrs = {b"system.posix_acl_access": acl}
    image, _ = convert_tree(conversions, tree, pause, tmp_path)
    paths = (b"/user", b"/refused", b"/masked", b"/group/inside", b"/link")
    expected = {
        Identity(4242, 4242): (True, False, False, False, True),
        Identity(4243, 0): (False, True, False, False, False),
        Identity(4243, 4243, (4343,)): (False, True, False, True, False),
        Identity(4244, 4244): (False, True, False, False, False),
        Identity(0, 0): (True, True, True, True, True),
    }
    for mode, root in in_each_mode(image, engine):
        for identity, readable in expected.items():
            found = access_of(root, identity, paths)
            assert tuple("r" in found[path].partition(" ")[0] for path in paths) == readable, (
                mode, identity, found,
            )  # fmt: skip


def test_what_a_file_of_the_image_cannot_a_changed_one_can(
    engine: Engine, conversions: Conversions, pause: Path, tmp_path: Path
) -> None:
    """The README says so; kernels that learn it make this fail, and the README shorter."""
    nobody = 0xFFFFFFFF
    acl = acl_of(
        (0x01, 6, nobody), (0x02, 4, 4242), (0x04, 4, nobody), (0x10, 4, nobody), (0x20, 4, nobody)
    )
    tree = make_directory(file=make_file(b"x" * 8192), other=make_file(b""))
    image, _ = convert_tree(conversions, tree, pause, tmp_path)

    def answers(file: str, target: str) -> dict[str, int]:
        found = {}
        for name, action in {
            "copy": lambda: copy_range(file, target),
            "direct": lambda: os.close(os.open(file, os.O_RDONLY | os.O_DIRECT)),
            # Last: to have an ACL set is to be changed.
            "acl": lambda: os.setxattr(file, "system.posix_acl_access", acl),
        }.items():
            try:
                action()
                found[name] = 0
            except OSError as error:
                found[name] = error.errno or -1
        return found

    expected = {
        "erofs": {"acl": errno.ENOTSUP, "direct": errno.EINVAL, "copy": errno.EXDEV},
        "fuse": {"acl": 0, "direct": 0, "copy": errno.EXDEV},
    }
    for mode, root in in_each_mode(image, engine, modes=tuple(expected)):
        os.chmod(f"{root}/other", 0o600)
        assert answers(f"{root}/file", f"{root}/other") == expected[mode], mode
        os.chmod(f"{root}/file", 0o600)
        changed = answers(f"{root}/file", f"{root}/other")
        assert changed == {"acl": 0, "direct": 0, "copy": 0}, mode


def copy_range(file: str, target: str) -> None:
    """Have the kernel copy a block from one file to another."""
    with open(file, "rb") as read, open(target, "r+b") as write:
        os.copy_file_range(read.fileno(), write.fileno(), 4096)


def names_in(place: str, at_once: int, *, again: bool = False) -> list[bytes]:
    """List a directory with getdents64, ``at_once`` bytes a call, ``.`` and ``..`` too.

    With ``again`` each call is on a descriptor of its own, that begins where the last ended.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(at_once)
    names = []
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    while (size := libc.syscall(217, fd, buffer, at_once)) > 0:
        at = 0
        while at < size:
            _, offset, length, _ = struct.unpack_from("=QqHB", buffer.raw, at)
            names.append(buffer.raw[at + 19 : at + length].split(b"\0")[0])
            at += length
        if again:
            os.close(fd)
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            os.lseek(fd, offset, os.SEEK_SET)
    assert size == 0, os.strerror(ctypes.get_errno())
    os.close(fd)
    return names


def test_directories_list_themselves_and_what_they_are_in(
    engine: Engine, conversions: Conversions, pause: Path, tmp_path: Path
) -> None:
    counts = (0, 1, 2, 1000, 5000)
    tree = make_directory()
    for count in counts:
        # Names before, between and behind the two in the image's order, by bytes.
        names = [b"!%d" % n if n % 3 == 0 else b"..%d" % n for n in range(count)]
        shared = make_file(b"")
        tree.children[b"d%d" % count] = make_directory(inside=make_directory())
        tree.children[b"d%d" % count].children |= dict.fromkeys(names, shared)
    tree.children[b"empty"] = make_directory()
    image, _ = convert_tree(conversions, tree, pause, tmp_path)
    for mode, root in in_each_mode(image, engine):
        for name, node in tree.children.items():
            if not node.is_directory:
                continue
            expected = sorted([b".", b"..", *node.children])
            place = f"{root}/{name.decode()}"
            for at_once in (400, 4096, 1 << 20):
                for again in (False, True):
                    found = names_in(place, at_once, again=again)
                    assert sorted(found) == expected, (mode, name, at_once, again)
            numbers = {entry.name: entry.inode() for entry in os.scandir(place)}
            for below in list(numbers)[:10]:
                assert os.lstat(f"{place}/{below}").st_ino == numbers[below], mode
        assert {b".", b".."} < set(names_in(root, 4096)), mode


@pytest.mark.parametrize("mode", MODES)
def test_a_real_image(engine: Engine, conversions: Conversions, mode: str) -> None:
    image = conversions.convert(build_image(IMAGES["node"]))
    plain = engine.start(image.source, "sleep", "1000")
    booted = dataclasses.replace(image, mode=mode).start(engine, "sleep", "1000")
    expected = dump_directory(root_of(plain), skip=ENGINE_PLACES)
    found = dump_when_filled(root_of(booted))
    # The engine has made its files in these two, so they are as old as the container.
    changed = {b"", b"/etc"}
    for tree in (expected, found):
        for path in changed:
            tree[path] = dataclasses.replace(tree[path], mtime_ns=0)
    assert len(found) > 5000
    # overlayfs counts the links of directories by how many layers it merges.
    assert compare(expected, found, directory_links=False) == []
