"""Layers over each other: what a container would see.

tests/system/test_engine_images.py compares with what a real engine shows.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter.images.view import LayerSource
from converter.layers import merge_layers
from converter.spool import Spool
from converter.tarreader import DIRECTORY_MEMORY, NODE_MEMORY, Budget
from converter.tree import Node
from store.errors import (
    ConvertError,
    DigestMismatch,
    FormatError,
    StorageFull,
    UnsafePath,
    UnsupportedEntry,
)
from tests.support.layers import (
    compressed,
    digest,
    directory,
    file,
    hardlink,
    opaque,
    symlink,
    tar_of,
    whiteout,
)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path) as opened:
        yield opened


def source(spool: Spool, layer: bytes, how: str = "none") -> LayerSource:
    stored = compressed(layer, how)
    return LayerSource(digest(layer), digest(stored), "", spool.store("stored", stored))


def merged(spool: Spool, *layers: bytes, budget: Budget | None = None) -> Node:
    return merge_layers([source(spool, layer) for layer in layers], spool, budget)


def at(root: Node, path: str) -> Node:
    for part in path.encode().split(b"/"):
        root = root.children[part]
    return root


def names(root: Node, path: str = "") -> set[str]:
    return {name.decode() for name in (at(root, path) if path else root).children}


def data(node: Node) -> bytes:
    return node.content.pread(0, node.content.size)


def test_no_layers_is_an_empty_root(spool: Spool) -> None:
    root = merge_layers([], spool)
    assert (root.mode, root.uid, root.gid, root.children) == (stat.S_IFDIR | 0o755, 0, 0, {})
    assert merged(spool, tar_of(), b"").children == {}


def test_root_is_always_0755_and_roots_with_the_layers_time(spool: Spool) -> None:
    root = merged(spool, tar_of(directory("./", mode=0o1777, uid=7, mtime=9)), tar_of(file("a")))
    assert (root.mode, root.uid, root.mtime_ns) == (stat.S_IFDIR | 0o755, 0, 9_000_000_000)


def test_root_cannot_become_a_file(spool: Spool) -> None:
    with pytest.raises(UnsupportedEntry):
        merged(spool, tar_of(file("./")))


def test_whiteout_hides_and_opaque_hides_only_lower_layers_wherever_it_stands(
    spool: Spool,
) -> None:
    lower = tar_of(directory("d/"), file("d/old"), file("f"))
    first = merged(spool, lower, tar_of(whiteout("f"), directory("d/"), opaque("d"), file("d/new")))
    last = merged(spool, lower, tar_of(whiteout("f"), directory("d/"), file("d/new"), opaque("d")))
    assert names(first) == names(last) == {"d"}
    assert names(first, "d") == names(last, "d") == {"new"}


def test_whiteout_of_nothing_is_nothing(spool: Spool) -> None:
    root = merged(
        spool, tar_of(directory("d/"), whiteout("d/x")), tar_of(whiteout("y"), whiteout("y"))
    )
    assert names(root) == {"d"}
    assert names(root, "d") == set()


def test_upper_directory_without_an_entry_is_roots_0755(spool: Spool) -> None:
    lower = tar_of(directory("tmp/", mode=0o1777, uid=5), file("tmp/a"))
    root = merged(spool, lower, tar_of(file("tmp/b", mtime=123)))
    tmp = at(root, "tmp")
    assert (tmp.mode, tmp.uid, tmp.mtime_ns) == (stat.S_IFDIR | 0o755, 0, 123_000_000_000)
    assert names(root, "tmp") == {"a", "b"}


def test_upper_file_below_a_lower_symlink_makes_a_directory(spool: Spool) -> None:
    lower = tar_of(
        directory("usr/"), directory("usr/lib/"), file("usr/lib/a"), symlink("lib", "usr/lib")
    )
    root = merged(spool, lower, tar_of(file("lib/foo")))
    assert at(root, "lib").is_directory
    assert names(root, "lib") == {"foo"}
    assert names(root, "usr/lib") == {"a"}


def test_relative_symlink_as_parent_within_a_layer_is_followed(spool: Spool) -> None:
    root = merged(
        spool,
        tar_of(
            directory("usr/"), directory("usr/lib/"), symlink("lib", "usr/./lib"), file("lib/x/foo")
        ),
        tar_of(
            directory("a/"),
            directory("a/b/"),
            directory("c/"),
            symlink("a/b/up", "../../c"),
            file("a/b/up/z"),
        ),
    )
    assert names(root, "usr/lib/x") == {"foo"}
    assert at(root, "lib").target == b"usr/./lib"
    assert names(root, "c") == {"z"}


@pytest.mark.parametrize(
    "members",
    [
        [directory("usr/"), symlink("l", "/usr"), file("l/x")],
        [symlink("l", "/"), file("l/x")],
        [symlink("l", "../etc"), file("l/x")],
        [directory("d/"), symlink("d/l", "../.."), file("d/l/x")],
        [file("../x")],
        [file("a/../../x")],
        [file("/../x")],
        [directory("..")],
        [file("a"), hardlink("b", "../a")],
        [symlink("l", "/etc"), hardlink("b", "l/passwd")],
        [file(".wh.")],
        [file(".wh..")],
        [directory("d/"), file("d/.wh...")],
    ],
)
def test_paths_that_leave_the_root_are_refused(spool: Spool, members: list[object]) -> None:
    with pytest.raises(UnsafePath, match=r"layer sha256:[0-9a-f]{64}: .*b'"):
        merged(spool, tar_of(*members))


@pytest.mark.parametrize(
    "members",
    [
        [symlink("l", "usr"), file("l/x")],
        [file("a"), file("a/b")],
        [whiteout("a"), file("a/b")],
        [directory("a/"), whiteout("a")],
        [symlink("a", "b"), symlink("b", "a"), file("a/x")],
        [file("a"), hardlink("a", "a")],
        [hardlink("a", "b")],
        [directory("a/"), hardlink("b", "a")],
        [file("n" * 256)],
        [file("d/" * 2048 + "x")],
        [symlink("a", "")],
        [symlink("a", "t" * 4096)],
        [file("a", xattrs={"user.x": bytes([1]) * 65537})],
        [file("a", xattrs={"trusted.overlay.redirect": b"/etc"})],
    ],
)
def test_what_engines_refuse_is_refused(spool: Spool, members: list[object]) -> None:
    with pytest.raises(UnsupportedEntry, match=r"layer sha256:.* entry b'"):
        merged(spool, tar_of(*members))


def test_limits_of_names_are_inclusive(spool: Spool) -> None:
    root = merged(spool, tar_of(file("n" * 255), symlink("s", "t" * 4095)))
    assert names(root) == {"n" * 255, "s"}


def test_hard_links_are_one_node_also_across_layers(spool: Spool) -> None:
    root = merged(
        spool,
        tar_of(directory("d/"), file("d/a", b"1"), hardlink("b", "d/a"), symlink("s", "q")),
        tar_of(hardlink("c", "d/a"), hardlink("t", "s")),
        tar_of(file("d/a", b"2")),
    )
    assert at(root, "b") is at(root, "c")
    assert at(root, "s") is at(root, "t")
    assert (data(at(root, "b")), data(at(root, "d/a"))) == (b"1", b"2")


def test_link_target_replaced_within_a_layer_keeps_the_inode(spool: Spool) -> None:
    root = merged(spool, tar_of(file("a", b"1"), hardlink("b", "a"), file("a", b"2")))
    assert (data(at(root, "b")), data(at(root, "a"))) == (b"1", b"2")


def test_link_to_a_lower_file_hidden_by_the_same_layer(spool: Spool) -> None:
    root = merged(spool, tar_of(file("a", b"1")), tar_of(whiteout("a"), hardlink("b", "a")))
    assert names(root) == {"b"}


def test_aufs_leftovers_are_ignored_but_can_be_linked_to(spool: Spool) -> None:
    root = merged(
        spool,
        tar_of(
            directory(".wh..wh.plnk/"),
            file(".wh..wh.plnk/1.2", b"x"),
            file(".wh..wh.aufs"),
            hardlink("a", ".wh..wh.plnk/1.2"),
        ),
    )
    assert names(root) == {"a"}
    assert data(at(root, "a")) == b"x"


def test_directories_and_files_replace_each_other(spool: Spool) -> None:
    layers = [
        tar_of(directory("a/"), file("a/b")),
        tar_of(file("a", b"3")),
        tar_of(directory("a/", mode=0o700), file("a/c")),
    ]
    assert data(at(merged(spool, *layers[:2]), "a")) == b"3"
    root = merged(spool, *layers)
    assert names(root, "a") == {"c"}
    assert at(root, "a").mode == stat.S_IFDIR | 0o700


def test_xattrs_of_a_directory_are_its_topmost_layers(spool: Spool) -> None:
    root = merged(
        spool,
        tar_of(
            directory("d/", xattrs={"user.a": b"1"}), symlink("s", "x", xattrs={"user.b": b"1"})
        ),
        tar_of(directory("d/", xattrs={"user.c": b"\xff\x00"})),
    )
    assert at(root, "d").xattrs == {b"user.c": b"\xff\x00"}
    # The kernel has user.* on files and directories alone.
    assert at(root, "s").xattrs == {}


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
def test_layers_of_any_compression(spool: Spool, how: str) -> None:
    layer = tar_of(file("a", bytes(range(256)) * 40_000))
    root = merge_layers([source(spool, layer, how)], spool)
    assert data(at(root, "a")) == bytes(range(256)) * 40_000


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
def test_every_digest_is_checked(spool: Spool, how: str) -> None:
    layer = tar_of(file("a", b"data"))
    good = source(spool, layer, how)
    other = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    wrong_plain = LayerSource(other, good.digest, "", good.stored)
    with pytest.raises(DigestMismatch) as caught:
        merge_layers([wrong_plain], spool)
    assert (caught.value.expected, caught.value.actual) == (other, digest(layer))
    if how != "none":
        wrong_stored = LayerSource(good.diff_id, other, "", good.stored)
        with pytest.raises(DigestMismatch):
            merge_layers([wrong_stored], spool)


def test_damage_is_a_digest_mismatch_where_the_digest_is_known(spool: Spool) -> None:
    layer = tar_of(file("a", b"data" * 1000))
    good = source(spool, layer, "gzip")
    damaged = bytearray(good.stored.pread(0, good.stored.size))
    damaged[20] ^= 0xFF
    stored = spool.store("damaged", bytes(damaged))
    with pytest.raises(DigestMismatch):
        merge_layers([LayerSource(good.diff_id, good.digest, "", stored)], spool)
    with pytest.raises((FormatError, DigestMismatch)):
        merge_layers([LayerSource(good.diff_id, "", "", stored)], spool)


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_damage_of_a_plain_layer_is_a_digest_mismatch_whatever_it_breaks(
    spool: Spool, damaged: int
) -> None:
    """Plain layers are parsed while they are verified."""
    layers = [source(spool, tar_of(file(f"f{n}", b"data")), "none") for n in range(3)]
    whole = layers[damaged].stored.pread(0, layers[damaged].stored.size)
    for place in (0, 100, 148, 512, len(whole) - 1):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        stored = spool.store("damaged", bytes(broken))
        changed = list(layers)
        changed[damaged] = LayerSource(layers[damaged].diff_id, "", "", stored)
        with pytest.raises(DigestMismatch, match=layers[damaged].diff_id):
            merge_layers(changed, spool)


def test_implied_directories_count(spool: Spool) -> None:
    layer = tar_of(file("/".join("abcdefgh")))
    memory = NODE_MEMORY + len("a/b/c/d/e/f/g/h") + 7 * (DIRECTORY_MEMORY + 1)
    assert merged(spool, layer, budget=Budget(memory)).children
    with pytest.raises(ConvertError, match="more memory"):
        merged(spool, layer, budget=Budget(memory - 1))


def test_a_bomb_stops_at_the_reserve(tmp_path: Path) -> None:
    layer = tar_of(file("zeros", bytes(64 << 20)))
    with Spool(tmp_path) as spool:
        bomb = source(spool, layer, "gzip")
        spool.reserve = 1 << 62
        with pytest.raises(StorageFull, match="in reserve"):
            merge_layers([bomb], spool)
