"""Each kind of damage to the structure of a bootstrap is found, and named."""

import re
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from converter.cli import main
from converter.erofswriter import write_bootstrap
from converter.storing import add_bootstrap
from converter.structure import check_structure
from converter.tree import Content, Node
from store.errors import FormatError
from store.format.bootconfig import BootConfig, encode_boot_config
from store.format.chunkindex import ChunkIndex, encode_chunk_index
from store.format.digest import digest_of
from store.format.erofs import Image
from store.format.erofslayout import BLOCK, DIRENT, SLOT, SUPERBLOCK_OFFSET
from tests.support.layers import docker_archive, file, tar_of
from tests.support.stores import StoredImage
from tests.support.trees import DataRegion, make_directory, make_file, make_link, random_tree

LARGE = 5000
"""Bytes of xattrs that are larger than a block."""


def make_tree() -> Node:
    linked = make_file(b"linked")
    marked = make_file(b"marked")
    marked.xattrs = {b"user.a": b"1"}
    heavy = make_file(b"heavy")
    heavy.xattrs = {b"user.a": bytes(LARGE)}
    return make_directory(
        a=make_directory(b=make_directory(c=make_file(b"deep")), one=linked),
        device=Node(stat.S_IFCHR | 0o600, device=(1, 3)),
        heavy=heavy,
        link=make_link(b"target"),
        long=make_link(b"t" * 4090),
        marked=marked,
        two=linked,
        wide=make_directory(**{f"name{n:04}": linked for n in range(300)}),
        z=Node(stat.S_IFREG | 0o644, content=Content(3 * BLOCK)),
    )


def without_checksum(plain: bytes) -> bytearray:
    """Return a bootstrap whose first block may be damaged: a checksum tells of nothing else."""
    found = bytearray(plain)
    found[SUPERBLOCK_OFFSET + 8] &= ~1
    return found


class Made:
    """A bootstrap that can be damaged, and the chunk index that goes with it."""

    def __init__(self, root: Node) -> None:
        region = DataRegion(root)
        bootstrap = write_bootstrap(root, region.extents, region.size)
        self.index = ChunkIndex()
        self.index.data_size = region.size
        add_bootstrap(self.index, bootstrap.plain, bootstrap.data_start)
        self.plain = without_checksum(bootstrap.plain)

    def check(self) -> None:
        check_structure(Image(self.plain), self.index)

    def inode(self, path: str) -> int:
        """Return where an inode begins."""
        image = Image(self.plain)
        nid = image.root_nid
        for name in path.encode().split(b"/"):
            found = image.lookup(image.inode(nid), name) if name else nid
            assert found is not None
            nid = found
        return nid * SLOT

    def entry(self, path: str, name: str) -> int:
        """Return where the entry of ``name`` begins, in a directory with a tail alone."""
        image = Image(self.plain)
        directory = image.inode(self.inode(path) // SLOT)
        assert directory.size < BLOCK
        names = [found for found, _, _ in image.iter_dir(directory)]
        return (directory.tail_at or directory.blocks_at) + names.index(name.encode()) * DIRENT.size

    def put(self, at: int, form: str, *values: int) -> None:
        struct.pack_into(form, self.plain, at, *values)


def test_what_is_written_passes() -> None:
    Made(make_tree()).check()


@pytest.mark.parametrize("seed", range(8))
def test_random_trees_pass(seed: int) -> None:
    Made(random_tree(Random(seed), huge=False)).check()


def set_root(made: Made) -> None:
    made.put(SUPERBLOCK_OFFSET + 14, "<H", made.inode("two") // SLOT)


def count_inodes(made: Made) -> None:
    made.put(SUPERBLOCK_OFFSET + 16, "<Q", Image(made.plain).inode_count + 1)


def hide_inode(made: Made) -> None:
    """Name another device in the place of one: an inode that no name leads to."""
    two = made.inode("two")
    made.put(made.entry("", "marked"), "<Q", two // SLOT)
    made.put(two + 44, "<I", 303)


def grow_region(made: Made) -> None:
    made.put(SUPERBLOCK_OFFSET + 36, "<I", Image(made.plain).size // BLOCK + 1)


def move_region(made: Made) -> None:
    made.index.data_start += 2 << 20


def leave_region(made: Made) -> None:
    made.put(made.inode("z") + 8, "<Q", 3 * BLOCK + 1)


def leave_bootstrap(made: Made) -> None:
    made.put(made.entry("", "two"), "<Q", len(made.plain) // SLOT)


def leave_by_xattrs(made: Made) -> None:
    made.put(made.inode("marked") + 2, "<H", 0xFFFF)


def damage_xattr(made: Made) -> None:
    made.put(made.inode("marked") + 64 + 12, "<BB", 1, 77)


def leave_by_blocks(made: Made) -> None:
    made.put(made.inode("long") + 16, "<I", len(made.plain) // BLOCK)


def overlap_blocks(made: Made) -> None:
    """Put the target of a link where another inode is, in bytes that hold no zero."""
    at = made.inode("wide")
    made.put(made.inode("long") + 16, "<I", Image(made.plain).inode(at // SLOT).blocks_at // BLOCK)
    made.put(made.inode("long") + 8, "<Q", 1)


def overlap_inodes(made: Made) -> None:
    """Put a second inode into the xattrs of one: bytes that are an inode themselves."""
    at = made.inode("heavy") + 64 + 12 + 4 + 8
    at += -at % SLOT
    device = made.inode("device")
    made.plain[at : at + 64] = made.plain[device : device + 64]
    made.put(made.entry("", "device"), "<Q", at // SLOT)


def cross_block(made: Made) -> None:
    at = 2 * BLOCK - SLOT
    device = made.inode("device")
    made.plain[at : at + 64] = made.plain[device : device + 64]
    made.put(made.entry("", "device"), "<Q", at // SLOT)


def make_cycle(made: Made) -> None:
    at = made.entry("a/b", "c")
    made.put(at, "<Q", made.inode("a") // SLOT)
    made.plain[at + 10] = 2


def make_cycle_of_root(made: Made) -> None:
    made.put(made.entry("", "a"), "<Q", Image(made.plain).root_nid)


def name_twice(made: Made) -> None:
    made.put(made.entry("", "wide"), "<Q", made.inode("a") // SLOT)


def share_contents(made: Made) -> None:
    """Have many directories read the same blocks, as whoever wants time to be spent would."""
    at = made.inode("a/b")
    made.put(at, "<H", 1)
    made.put(at + 8, "<Q", len(made.plain) - BLOCK)
    made.put(at + 16, "<I", 1)


def wrong_parent(made: Made) -> None:
    made.put(made.entry("a/b", ".."), "<Q", Image(made.plain).root_nid)


def wrong_self(made: Made) -> None:
    made.put(made.entry("a/b", "."), "<Q", Image(made.plain).root_nid)


def self_is_file(made: Made) -> None:
    made.plain[made.entry("a/b", ".") + 10] = 1


def no_parent(made: Made) -> None:
    at = made.entry("a/b", "..")
    names = made.plain.index(b"...c", at)
    made.plain[names + 1 : names + 3] = b".a"
    made.put(at, "<Q", made.inode("device") // SLOT)
    made.plain[at + 10] = 3


def wrong_type(made: Made) -> None:
    made.plain[made.entry("", "marked") + 10] = 3


def no_type(made: Made) -> None:
    made.plain[made.entry("", "marked") + 10] = 9


def unsorted(made: Made) -> None:
    at = made.plain.index(b"marked", made.entry("", "two"))
    made.plain[at : at + 6] = b"aarked"


def same_name_twice(made: Made) -> None:
    """Across two blocks: within one, the reader sees it as badly sorted too."""
    image = Image(made.plain)
    wide = image.inode(made.inode("wide") // SLOT)
    names = [name for name, _, _ in image.iter_dir(wide)]
    first, second = names[-2:]
    at = made.plain.index(second, wide.tail_at or wide.blocks_at)
    made.plain[at : at + len(second)] = first


def slash_in_name(made: Made) -> None:
    at = made.plain.index(b"marked", made.entry("", "two"))
    made.plain[at + 3] = ord("/")


def count_links(made: Made) -> None:
    made.put(made.inode("two") + 44, "<I", 301)


def count_directory_links(made: Made) -> None:
    made.put(made.inode("a") + 44, "<I", 2)


def no_links(made: Made) -> None:
    made.put(made.inode("two") + 44, "<I", 0)


def zero_in_target(made: Made) -> None:
    made.plain[made.plain.index(b"target")] = 0


def same_ordinal(made: Made) -> None:
    made.put(made.inode("z") + 20, "<I", 1)


def high_ordinal(made: Made) -> None:
    made.put(made.inode("z") + 20, "<I", 1 << 31)


def unknown_layout(made: Made) -> None:
    made.put(made.inode("z"), "<H", 3)


DAMAGES: dict[Callable[[Made], None], str] = {
    set_root: "the root is not a directory",
    count_inodes: r"\d+ inodes stated, \d+ found",
    hide_inode: r"\d+ inodes stated, \d+ found",
    grow_region: "a data region from",
    move_region: "a data region from",
    leave_region: "do not lie in the data region",
    leave_bootstrap: "lies outside the bootstrap",
    leave_by_xattrs: "xattrs of inode .* lie outside the bootstrap",
    damage_xattr: "damaged xattr",
    leave_by_blocks: "do not lie in the bootstrap",
    overlap_blocks: "overlaps",
    overlap_inodes: "overlaps",
    cross_block: "crosses a block",
    make_cycle: r"\(/a/b/c\): this directory has another name already",
    make_cycle_of_root: r"\(/a\): this directory has another name already",
    name_twice: r"\(/wide\): this directory has another name already",
    share_contents: "directories overlap",
    wrong_parent: r"\(/a/b\): its '..' is inode",
    wrong_self: r"\(/a/b\): its '.' is inode",
    self_is_file: r"\(/a/b\): its '.' is",
    no_parent: r"\(/a/b\): it lacks '.' or '..'",
    wrong_type: r"\(/marked\): its file type is 1, its entry says 3",
    no_type: "not sorted or typed",
    unsorted: "not sorted or typed",
    same_name_twice: "not sorted",
    slash_in_name: "impossible name",
    count_links: "its link count is 301, its names are 302",
    count_directory_links: r"\(/a\): its link count is 2, with 1 subdirectories",
    no_links: "has 0 links",
    zero_in_target: "zero byte in the target",
    same_ordinal: "its ordinal 1 is another's",
    high_ordinal: "its ordinal 2147483648 is another's, or over",
    unknown_layout: "has layout 0x3",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_kind_of_damage_is_found_and_named(damage: Callable[[Made], None]) -> None:
    made = Made(make_tree())
    damage(made)
    with pytest.raises(FormatError, match=DAMAGES[damage]):
        made.check()


def test_bootfs_check_names_it_and_exits_12(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = StoredImage(make_tree(), tmp_path / "store")
    made = Made(make_tree())
    made.plain = without_checksum(image.plain_bootstrap)
    wrong_parent(made)
    # With digests that are right, as whoever makes the image can make them.
    add_bootstrap(image.index, bytes(made.plain), image.index.data_start)
    index = encode_chunk_index(image.index)
    config = encode_boot_config(BootConfig(b"release", b"source", digest_of(index), []))
    own = tar_of(
        file(".bootfs/image/bootstrap", bytes(made.plain)),
        file(".bootfs/image/chunk-index", index),
        file(".bootfs/image/config", config),
    )
    (tmp_path / "boot").write_bytes(docker_archive(tar_of(), own))
    (tmp_path / "source").write_bytes(docker_archive(tar_of(file("one"))))
    archives = [f"docker-archive:{tmp_path / name}" for name in ("source", "boot")]
    assert main(["check", *archives, "--store", str(image.path), "--progress", "none"]) == 12
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith(f"bootfs: {archives[1]}: bootstrap: at byte ")
    assert re.search(
        r"inode \d+ \(/a/b\): its '..' is inode \d+, not \d+; convert the image again\n$", said.err
    )
