import stat
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from converter.check import Comparison
from converter.progress import Silent
from converter.tree import Node
from store.errors import RemoteError, TimedOut
from store.format.erofs import Image
from store.read.local import DirectorySource
from tests.support.stores import StoredImage, WatchedSource
from tests.support.trees import make_directory, make_file, make_link
from tests.support.treetar import copy_of, one_byte_changed


def make_tree() -> Node:
    linked = make_file(b"linked")
    big = make_file(Random(1).randbytes(3_000_000))
    big.xattrs = {b"user.a": b"1"}
    return make_directory(
        d=make_directory(a=linked, b=linked, c=make_file(b"linked")),
        big=big,
        device=Node(stat.S_IFCHR | 0o600, device=(1, 3)),
        empty=make_file(b""),
        link=make_link(b"target"),
        pipe=Node(stat.S_IFIFO | 0o600),
    )


@pytest.fixture
def image(tmp_path: Path) -> StoredImage:
    return StoredImage(make_tree(), tmp_path / "store")


def differences(image: StoredImage, tree: Node, source: WatchedSource | None = None) -> list[str]:
    reader = image.open_reader(source)
    comparison = Comparison(tree, Image(reader.bootstrap.read_all()), reader, Silent())
    try:
        return [str(difference) for difference in comparison.iter_differences()]
    finally:
        reader.close()


def test_what_is_equal_has_no_difference(image: StoredImage) -> None:
    assert differences(image, make_tree()) == []


def change(name: str, **changed: object) -> Callable[[Node], None]:
    def apply(root: Node) -> None:
        root.children[name.encode()] = copy_of(root.children[name.encode()], **changed)

    return apply


def add_name(root: Node) -> None:
    root.children[b"d"].children[b"new"] = make_file(b"")


def remove_name(root: Node) -> None:
    del root.children[b"pipe"]


def add_directory(root: Node) -> None:
    root.children[b"d"].children[b"below"] = make_directory()


def change_byte(root: Node) -> None:
    big = root.children[b"big"]
    big.content = one_byte_changed(big.content, 2_345_678)


def fill_empty(root: Node) -> None:
    root.children[b"empty"] = make_file(b"x")


def split_link(root: Node) -> None:
    root.children[b"d"].children[b"b"] = make_file(b"linked")


def join_link(root: Node) -> None:
    root.children[b"d"].children[b"c"] = root.children[b"d"].children[b"a"]


def change_root(root: Node) -> None:
    root.uid = 7


CASES: dict[str, tuple[Callable[[Node], None], str]] = {
    "mode": (change("big", mode=stat.S_IFREG | 0o600), "/big: mode is"),
    "setuid": (change("big", mode=stat.S_IFREG | 0o4644), "/big: mode is"),
    "kind": (change("pipe", mode=stat.S_IFSOCK | 0o600), "/pipe: mode is"),
    "file for directory": (change("d", mode=stat.S_IFREG | 0o755), "/d: mode is"),
    "owner": (change("big", uid=1), "/big: owner is 0, in the source 1"),
    "group": (change("link", gid=1), "/link: group is 0, in the source 1"),
    "time": (change("d", mtime_ns=1), "/d: mtime is 0, in the source 1"),
    "xattr": (change("big", xattrs={b"user.a": b"2"}), "/big: xattrs is"),
    "no xattr": (change("big", xattrs={}), "/big: xattrs is"),
    "more xattrs": (change("d", xattrs={b"user.b": b""}), "/d: xattrs is"),
    "target": (change("link", target=b"other!"), "/link: target is"),
    "device": (change("device", device=(1, 5)), "/device: device is"),
    "a name too few": (add_name, "/d/new: missing in the converted image"),
    "a name too many": (remove_name, "/pipe: not in the source"),
    "a directory too few": (add_directory, "/d: links is 2, in the source 3"),
    "a byte": (change_byte, "/big: bytes differ from 2345678 on"),
    "a size": (fill_empty, "/empty: size is 0, in the source 1"),
    "links split": (split_link, "hard links differ"),
    "links joined": (join_link, "hard links differ"),
    "the root": (change_root, "/: owner is 0, in the source 7"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_kind_of_difference_is_found(image: StoredImage, case: str) -> None:
    tree = make_tree()
    apply, expected = CASES[case]
    apply(tree)
    found = differences(image, tree)
    assert any(expected in line for line in found), found


def test_a_damaged_pack_is_a_difference_in_the_files_that_need_it(image: StoredImage) -> None:
    pack = next((image.path / "packs").rglob("*/*"))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    found = differences(image, make_tree())
    assert len(found) == 1 and found[0].startswith("/big: cannot be read:")


def test_a_missing_pack_is_a_difference_in_every_file(image: StoredImage) -> None:
    next((image.path / "packs").rglob("*/*")).unlink()
    found = differences(image, make_tree())
    assert [line.partition(":")[0] for line in found] == ["/big", "/d/a", "/d/c"]


def test_a_store_that_does_not_answer_ends_the_comparison(image: StoredImage) -> None:
    def fail(*_: object) -> None:
        raise TimedOut("no answer")

    source = WatchedSource(DirectorySource(str(image.path)), fail)
    with pytest.raises(RemoteError):
        differences(image, make_tree(), source)
    assert source.fetched.total() <= 2  # the ranges of one read
