"""The generator and the comparison that other tests lean on."""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path
from random import Random

import pytest

from converter.tree import Node
from tests.support.dump import Entry, compare, dump_directory, dump_tree
from tests.support.trees import (
    DataRegion,
    iter_tree,
    make_directory,
    make_file,
    make_link,
    random_tree,
)


def features_of(root: Node) -> set[str]:
    found = set()
    names: dict[Node, int] = {}
    for path, node in iter_tree(root):
        names[node] = names.get(node, 0) + 1
        name = path.rpartition(b"/")[2]
        size = node.content.size
        covered = sum(segment.size for segment in node.content.segments)
        checks = {
            "fifo": stat.S_ISFIFO(node.mode),
            "socket": stat.S_ISSOCK(node.mode),
            "character device": stat.S_ISCHR(node.mode),
            "block device": stat.S_ISBLK(node.mode),
            "hard link": names[node] > 1,
            "hard-linked symlink": names[node] > 1 and node.is_symlink,
            "longest link": len(node.target) == 4095,
            "longest name": len(name) == 255,
            "name that is not UTF-8": name != name.decode("utf-8", "replace").encode(),
            "name before '.'": b"" < name < b".",
            "empty file": node.is_regular and size == 0,
            "sparse": 0 < covered < size,
            "all hole": node.is_regular and covered == 0 < size,
            "over 4 GiB": size > 4 << 30,
            "empty directory": node.is_directory and not node.children,
            "wide directory": len(node.children) >= 3000,
            "before 1970": node.mtime_ns < 0,
            "nanoseconds": node.mtime_ns % 1_000_000_000 > 0,
            "32-bit ids": node.uid > 0xFFFF and node.gid > 0xFFFF,
            "setuid": bool(node.mode & stat.S_ISUID),
            "sticky": bool(node.mode & stat.S_ISVTX),
            "capability": b"security.capability" in node.xattrs,
            "access ACL": b"system.posix_acl_access" in node.xattrs,
            "default ACL": b"system.posix_acl_default" in node.xattrs,
            "xattr on a link": node.is_symlink and bool(node.xattrs),
            "xattrs over a block": sum(map(len, node.xattrs.values())) > 4096,
        }
        found |= {feature for feature, present in checks.items() if present}
    return found


ALL_FEATURES = 26


def test_every_feature_appears_over_fifty_seeds() -> None:
    found = [features_of(random_tree(Random(seed))) for seed in range(50)]
    assert len(set().union(*found)) == ALL_FEATURES


def test_same_seed_gives_same_tree() -> None:
    assert dump_tree(random_tree(Random(3))) == dump_tree(random_tree(Random(3)))


def test_huge_files_can_be_left_out() -> None:
    for seed in range(50):
        assert "over 4 GiB" not in features_of(random_tree(Random(seed), huge=False))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Entry)])
def test_compare_names_every_field_that_differs(field: str) -> None:
    expected = dump_tree(make_directory(a=make_file(b"x")))
    changed = dataclasses.replace(expected[b"/a"], **{field: "other"})
    lines = compare(expected, {**expected, b"/a": changed})
    assert len(lines) == 1
    assert field in lines[0]


def test_compare_names_paths_that_only_one_side_has() -> None:
    one, both = dump_tree(make_directory()), dump_tree(make_directory(a=make_file(b"")))
    assert compare(one, both) == ["b'/a': not expected"]
    assert compare(both, one) == ["b'/a': missing"]


def test_compare_can_leave_out_link_counts_of_directories_only() -> None:
    expected = dump_tree(make_directory(a=make_file(b"")))
    actual = {
        path: dataclasses.replace(entry, nlink=1 if path == b"" else 7)
        for path, entry in expected.items()
    }
    assert compare(expected, actual, directory_links=False) == ["b'/a': nlink is 7, expected 1"]


def test_directory_on_disk_dumps_as_its_tree(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "d").mkdir(parents=True)
    (top / "d" / "file").write_bytes(b"z" * 3_000_000)
    (top / "d" / "link").symlink_to("file")
    os.link(top / "d" / "file", top / "twin")
    (top / "skipped").mkdir()
    os.mkfifo(top / "fifo")
    file, link, fifo = make_file(b"z" * 3_000_000), make_link(b"file"), Node(stat.S_IFIFO)
    directory = make_directory(file=file, link=link)
    root = make_directory(d=directory, fifo=fifo, twin=file)
    for path, node in iter_tree(root):
        status = os.lstat(os.fsencode(top) + path)
        node.mode, node.mtime_ns = status.st_mode, status.st_mtime_ns
        node.uid, node.gid = status.st_uid, status.st_gid
    lines = compare(dump_tree(root), dump_directory(top, skip=[b"/skipped"]), directory_links=False)
    assert lines == []


def test_data_region_holds_files_at_blocks_with_zeros_between() -> None:
    root = make_directory(a=make_file(b"a" * 5000), b=make_file(b""), c=make_file(b"c"))
    region = DataRegion(root)
    assert region.extents == {root.children[b"a"]: 0, root.children[b"c"]: 8192}
    assert region.size == 12288
    assert region.pread(0, region.size) == b"a" * 5000 + bytes(3192) + b"c" + bytes(4095)
    assert region.pread(4999, 3194) == b"a" + bytes(3192) + b"c"
