"""What the writer promises about its bytes, and what it refuses."""

from __future__ import annotations

import stat

import pytest

from converter.erofsplan import NEIGHBOURHOOD
from converter.erofswriter import write_bootstrap
from converter.tree import Content, Node, empty_root
from store.errors import FormatError, UnsupportedEntry
from store.format.erofs import Image
from tests.support.trees import DataRegion, make_directory, make_file, make_link

MIB = 1 << 20


def write(root: Node) -> bytes:
    region = DataRegion(root)
    return write_bootstrap(root, region.extents, region.size).plain


def test_sizes_of_an_empty_image() -> None:
    bootstrap = write_bootstrap(empty_root(), {}, 0)
    assert len(bootstrap.plain) == 4096
    assert bootstrap.data_start == 2 * MIB
    image = Image(bootstrap.plain)
    assert (image.size, image.data_start, image.inode_count) == (2 * MIB, 2 * MIB, 1)


def test_data_region_starts_at_the_next_two_mebibytes() -> None:
    root = make_directory()
    for number in range(40_000):
        root.children[b"%d" % number] = make_file(b"")
    bootstrap = write_bootstrap(root, {}, 5000)
    assert 2 * MIB < len(bootstrap.plain) <= bootstrap.data_start == 4 * MIB
    assert len(bootstrap.plain) % 4096 == 0
    assert Image(bootstrap.plain).size == 4 * MIB + 8192


def test_bytes_do_not_depend_on_the_order_of_children() -> None:
    shared = make_file(b"shared")
    pairs = [(b"%d" % number, make_file(b"%d" % number)) for number in range(50)]
    pairs += [(b"one", shared), (b"two", shared), (b"dir", make_directory(x=shared))]
    forward, backward = make_directory(), make_directory()
    forward.children.update(pairs)
    backward.children.update(reversed(pairs))
    region = DataRegion(forward)
    assert write_bootstrap(forward, region.extents, region.size) == write_bootstrap(
        backward, region.extents, region.size
    )


def test_images_that_differ_have_different_uuids() -> None:
    images = [write(make_directory()), write(make_directory(a=make_file(b"")))]
    uuids = {image[1024 + 48 : 1024 + 64] for image in images}
    assert len(uuids) == 2
    assert all(uuid[6] >> 4 == 8 and uuid[8] >> 6 == 2 for uuid in uuids)


def test_link_counts() -> None:
    shared = make_file(b"x")
    root = make_directory(a=shared, d=make_directory(b=shared, e=make_directory()))
    image = Image(write(root))
    top = image.inode(image.root_nid)
    below = image.inode(image.lookup(top, b"d") or 0)
    file = image.inode(image.lookup(top, b"a") or 0)
    assert (top.nlink, below.nlink, file.nlink) == (3, 3, 2)
    assert image.lookup(below, b"b") == file.nid
    assert image.inode_count == 4


def test_fields_that_mean_nothing_for_a_kind_are_ignored() -> None:
    file = make_file(b"")
    file.target, file.device, file.children = b"t" * 5000, (9999, 9999), {b"/": file}
    root = make_directory(file=file)
    assert write(root) == write(make_directory(file=make_file(b"")))


def test_files_of_a_directory_lie_side_by_side_behind_their_directory() -> None:
    root = make_directory(
        a=make_directory(x=make_file(b""), y=make_file(b"")),
        b=make_directory(x=make_file(b""), y=make_file(b"")),
    )
    image = Image(write(root))
    top = image.inode(image.root_nid)
    order = []
    for name in (b"a", b"b"):
        directory = image.inode(image.lookup(top, name) or 0)
        order.append(directory.nid)
        order += [image.lookup(directory, child) or 0 for child in (b"x", b"y")]
    a, ax, ay, b, bx, by = order
    assert image.root_nid < a < b < ax < ay < bx < by
    assert ay - ax == by - bx == 2


def test_listing_names_touches_little_more_than_the_directories() -> None:
    root = make_directory()
    for number in range(200):
        directory = root.children[b"dir%d" % number] = make_directory()
        for entry in range(50):
            directory.children[b"file-%d" % entry] = make_file(b"")
    image = Image(write(root))
    pages, size, file_nids = set(), 0, []
    stack = [image.root_nid]
    while stack:
        inode = image.inode(stack.pop())
        pages.add(inode.nid * 32 // 4096)
        size += 64 + inode.size
        for name, nid, file_type in image.iter_dir(inode):
            if file_type == 2 and name not in (b".", b".."):
                stack.append(nid)
            elif file_type == 1:
                file_nids.append(nid)
    assert len(pages) <= 1.4 * size / 4096
    assert len(file_nids) * 64 > 2 * size
    # Yet the files of the first neighbourhood lie before the last directories.
    assert len(file_nids) > 2 * NEIGHBOURHOOD
    assert min(file_nids) * 32 // 4096 < max(pages) / 2


def in_directory(node: Node) -> Node:
    return make_directory(etc=make_directory(odd=node))


def with_xattrs(**xattrs: bytes) -> Node:
    node = make_file(b"")
    node.xattrs = {name.replace("_", ".", 1).encode(): value for name, value in xattrs.items()}
    return node


def odd_nodes() -> dict[str, Node]:
    far = make_file(b"")
    far.mtime_ns = (1 << 63) * 1_000_000_000
    foreign, minus_one = make_file(b""), make_file(b"")
    foreign.gid, minus_one.uid = 1 << 32, -1
    many = make_file(b"")
    many.xattrs = {b"user.%d" % number: bytes(60_000) for number in range(5)}
    return {
        "no kind": Node(0o644),
        "unknown kind": Node(0o030000),
        "empty target": make_link(b""),
        "long target": make_link(b"t" * 4096),
        "zero byte in target": make_link(b"a\0b"),
        "major": Node(stat.S_IFCHR, device=(4096, 0)),
        "minor": Node(stat.S_IFBLK, device=(0, 1 << 20)),
        "time": far,
        "gid": foreign,
        "uid": minus_one,
        "mode": Node(stat.S_IFREG | 1 << 16),
        "xattr value": with_xattrs(user_x=bytes(65536)),
        "xattr name": with_xattrs(**{"user_" + "n" * 251: b""}),
        "xattr namespace": with_xattrs(btrfs_x=b""),
        "xattr without a name": with_xattrs(user_=b""),
        "xattr that extends a whole name": with_xattrs(system_posix_acl_access2=b"\2\0\0\0"),
        "ACL version": with_xattrs(system_posix_acl_access=b"\1\0\0\0"),
        "ACL size": with_xattrs(system_posix_acl_access=b"\2\0\0\0\0"),
        "xattrs together": many,
    }


@pytest.mark.parametrize("case", odd_nodes())
def test_what_erofs_cannot_hold_is_refused_by_path(case: str) -> None:
    with pytest.raises(UnsupportedEntry, match=r"^/etc/odd: "):
        write(in_directory(odd_nodes()[case]))


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b", b"n" * 256])
def test_impossible_names_are_refused(name: bytes) -> None:
    root = make_directory(etc=make_directory())
    root.children[b"etc"].children[name] = make_file(b"")
    with pytest.raises(UnsupportedEntry, match=r"^/etc: "):
        write(root)


def test_longest_xattr_name_and_value_are_kept() -> None:
    node = with_xattrs(**{"user_" + "n" * 250: b"v" * 65535})
    image = Image(write(make_directory(f=node)))
    nid = image.lookup(image.inode(image.root_nid), b"f") or 0
    assert image.xattrs(image.inode(nid)) == node.xattrs


def test_directory_under_two_names_is_refused() -> None:
    shared = make_directory()
    with pytest.raises(UnsupportedEntry, match=r"^/b: this directory has another name"):
        write(make_directory(a=shared, b=shared))


def test_directory_inside_itself_is_refused() -> None:
    root = make_directory()
    root.children[b"again"] = root
    with pytest.raises(UnsupportedEntry, match=r"^/again: this directory has another name"):
        write_bootstrap(root, {}, 0)


def test_root_must_be_a_directory() -> None:
    with pytest.raises(UnsupportedEntry, match=r"^/: the root"):
        write(make_file(b""))


def test_more_than_sixteen_tebibytes_are_refused() -> None:
    most = 0xFFFFFFFF * 4096 - 2 * MIB
    assert Image(write_bootstrap(empty_root(), {}, most).plain).size == most + 2 * MIB
    with pytest.raises(UnsupportedEntry, match=f"at most {most} can be addressed"):
        write_bootstrap(empty_root(), {}, most + 1)


@pytest.mark.parametrize("offset", [None, -4096, 1, 4096, 1 << 40])
def test_file_without_a_place_in_the_data_region_is_refused(offset: int | None) -> None:
    file = Node(stat.S_IFREG, content=Content(4097))
    extents = {} if offset is None else {file: offset}
    with pytest.raises(FormatError, match="no place for a file of 4097 bytes"):
        write_bootstrap(make_directory(f=file), extents, 8192)
