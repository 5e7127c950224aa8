"""Any tree is read back as it was written; any damage is refused or stays in bounds."""

from __future__ import annotations

import functools
import itertools
import stat
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from converter.erofsplan import plan_places
from converter.erofstree import survey_tree
from converter.erofswriter import write_bootstrap
from converter.tree import Node
from store.errors import FormatError
from store.format.erofs import Image, Inode
from tests.support.dump import compare, dump_image, dump_tree
from tests.support.trees import DataRegion, iter_tree, make_directory, make_file, random_tree

SEEDS = st.integers(0, 1 << 32)
NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@settings(max_examples=60)
@given(SEEDS)
def test_tree_is_read_back_as_written(seed: int) -> None:
    root = random_tree(Random(seed), huge=False)
    region = DataRegion(root)
    bootstrap = write_bootstrap(root, region.extents, region.size)
    image = Image(bootstrap.plain)

    def read(offset: int, size: int) -> bytes:
        return region.pread(offset - bootstrap.data_start, size)

    assert compare(dump_tree(root), dump_image(image, read)) == []
    assert image.inode_count == len({node for _path, node in iter_tree(root)})
    assert image.size == bootstrap.data_start + region.size


@settings(max_examples=100)
@given(st.sets(NAMES, max_size=400), st.binary(max_size=255))
def test_any_names_are_listed_in_order_and_found(names: set[bytes], other: bytes) -> None:
    root = make_directory()
    shared = make_file(b"")
    root.children = dict.fromkeys(names, shared)
    image = Image(write_bootstrap(root, {}, 0).plain)
    top = image.inode(image.root_nid)
    listed = [name for name, _nid, _type in image.iter_dir(top)]
    assert listed == sorted({*names, b".", b".."})
    assert all(image.lookup(top, name) for name in names)
    assert (image.lookup(top, other) is not None) == (other in listed)


@settings(max_examples=40)
@given(SEEDS)
def test_places_do_not_overlap_and_tails_cross_no_block(seed: int) -> None:
    root = random_tree(Random(seed), huge=False)
    survey = survey_tree(root)
    plan = plan_places(survey)
    contents = {directory.node: directory.size for directory in survey.directories}
    contents |= {node: len(node.target) for node in plan.nids if node.is_symlink}
    taken = [(1024, 1024 + 128)]
    for node, nid in plan.nids.items():
        start = nid * 32
        end = start + 64 + len(survey.xattrs.get(node, b""))
        size = contents.get(node, 0)
        if node in plan.inline:
            end += size % 4096
            size -= size % 4096
            assert start // 4096 == (end - 1) // 4096
        taken.append((start, end))
        if size:
            first = plan.blocks[node] * 4096
            taken.append((first, first + size))
    taken.sort()
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(taken))
    assert taken[-1][1] <= plan.end_block * 4096


@functools.cache
def sample(seed: int) -> bytes:
    """Return a bootstrap without checksum, so that damage reaches the parser behind it."""
    root = random_tree(Random(seed), huge=False)
    region = DataRegion(root)
    plain = bytearray(write_bootstrap(root, region.extents, region.size).plain)
    plain[1024 + 8] &= ~1
    return bytes(plain)


def visit(image: Image) -> int:
    """Use everything a bootstrap offers and check the bounds; return the number of inodes."""
    entered = set()
    stack = [image.root_nid]
    while stack:
        nid = stack.pop()
        if nid in entered:
            continue
        entered.add(nid)
        try:
            inode = image.inode(nid)
            visit_inode(image, inode)
            if stat.S_ISDIR(inode.mode):
                stack += [child for _name, child, _type in image.iter_dir(inode)]
        except FormatError:
            continue
    return len(entered)


def visit_inode(image: Image, inode: Inode) -> None:
    assert 0 <= inode.mtime_ns < 1_000_000_000
    xattrs = image.xattrs(inode)
    assert sum(map(len, xattrs.values())) <= inode.xattrs_size
    if stat.S_ISREG(inode.mode) and inode.size:
        assert image.data_start <= inode.data_offset
        assert inode.data_offset + inode.size <= image.size
    elif stat.S_ISLNK(inode.mode):
        assert len(image.readlink(inode)) == inode.size <= 4095
    elif stat.S_ISDIR(inode.mode):
        before = b""
        for name, _nid, file_type in image.iter_dir(inode):
            assert before < name
            assert len(name) <= 255
            assert b"/" not in name
            assert 1 <= file_type <= 7
            before = name
        image.lookup(inode, before)


@settings(max_examples=300)
@given(st.integers(0, 15), st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=12))))
@example(3, [(0.28125, b"\0")])
def test_damage_is_refused_or_stays_in_bounds(
    seed: int, damages: list[tuple[float, bytes]]
) -> None:
    plain = bytearray(sample(seed))
    used = len(plain.rstrip(b"\0"))
    for place, value in damages:
        at = 1024 + int(place * (used - 1024))
        plain[at : at + len(value)] = value
    try:
        image = Image(plain)
    except FormatError:
        return
    assert visit(image) <= len(plain) // 32


@settings(max_examples=60)
@given(st.integers(0, 15), st.floats(0, 1))
def test_truncation_is_refused_or_stays_in_bounds(seed: int, keep: float) -> None:
    plain = sample(seed)
    try:
        image = Image(plain[: int(keep * len(plain))])
    except FormatError:
        return
    visit(image)


@settings(max_examples=30)
@given(st.binary(min_size=3072, max_size=3072), st.binary(max_size=9000))
def test_noise_behind_a_good_superblock_stays_in_bounds(head: bytes, rest: bytes) -> None:
    good = sample(0)
    plain = good[:1152] + head[: 4096 - 1152] + rest
    plain += good[len(plain) :]
    visit(Image(plain))


def shuffled(random: Random, node: Node) -> None:
    items = list(node.children.items())
    random.shuffle(items)
    node.children = dict(items)


@settings(max_examples=20)
@given(SEEDS)
def test_bytes_depend_on_the_tree_alone(seed: int) -> None:
    root = random_tree(Random(seed), huge=False)
    region = DataRegion(root)
    first = write_bootstrap(root, region.extents, region.size)
    for _path, node in list(iter_tree(root)):
        shuffled(Random(seed), node)
    assert write_bootstrap(root, region.extents, region.size) == first
