"""What the reader promises, and what it refuses."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.erofswriter import write_bootstrap
from converter.tree import Node
from store.errors import FormatError, UnsupportedVersion
from store.format.crc32c import update_crc32c
from store.format.erofs import Image, Inode
from store.format.erofslayout import encode_device, parse_device
from tests.support.trees import DataRegion, make_directory, make_file, make_link


def write(root: Node) -> bytes:
    region = DataRegion(root)
    return write_bootstrap(root, region.extents, region.size).plain


def reseal(image: bytearray) -> Image:
    """Make the checksum right again, so that only the damage itself can be noticed."""
    image[1028:1032] = bytes(4)
    image[1028:1032] = update_crc32c(0xFFFFFFFF, bytes(image[1024:4096])).to_bytes(4, "little")
    return Image(image)


def find(image: Image, path: bytes) -> Inode:
    inode = image.inode(image.root_nid)
    for name in path.split(b"/"):
        nid = image.lookup(inode, name)
        assert nid is not None
        inode = image.inode(nid)
    return inode


@pytest.fixture
def wide() -> Image:
    root = make_directory()
    for number in range(0, 3000, 2):
        root.children[b"%06d" % number] = make_file(b"")
    return Image(write(root))


def test_crc32c_of_the_standard_check_value() -> None:
    assert update_crc32c(0xFFFFFFFF, b"123456789") ^ 0xFFFFFFFF == 0xE3069283
    assert update_crc32c(update_crc32c(7, b"12345"), b"6789") == update_crc32c(7, b"123456789")


@pytest.mark.parametrize("device", [(0, 0), (1, 3), (8, 255), (8, 256), (0xFFF, 0xFFFFF)])
def test_device_numbers_survive(device: tuple[int, int]) -> None:
    assert parse_device(encode_device(*device)) == device


def test_device_numbers_have_the_kernels_form() -> None:
    assert encode_device(8, 1) == 0x801
    assert encode_device(0x123, 0x45678) == 0x45612378


def test_every_kind_of_buffer_reads_alike(tmp_path: Path) -> None:
    plain = write(make_directory(file=make_file(b"x"), link=make_link(b"target")))
    padded = plain + bytes((2 << 20) - len(plain))
    path = tmp_path / "bootstrap"
    path.write_bytes(padded)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for buffer in (plain, bytearray(plain), memoryview(plain), padded, mapped):
            image = Image(buffer)
            root = image.inode(image.root_nid)
            names = [name for name, _nid, _type in image.iter_dir(root)]
            assert names == [b".", b"..", b"file", b"link"]
            assert image.readlink(find(image, b"link")) == b"target"
            assert find(image, b"file").data_offset == image.data_start == 2 << 20
            assert image.size == (2 << 20) + 4096


def test_lookup_finds_what_is_there_and_nothing_else(wide: Image) -> None:
    root = wide.inode(wide.root_nid)
    listed = {name: nid for name, nid, _type in wide.iter_dir(root)}
    assert len(listed) == 1502
    for name, nid in listed.items():
        assert wide.lookup(root, name) == nid
    for number in range(1, 3000, 2):
        assert wide.lookup(root, b"%06d" % number) is None
    for name in (b"", b"\0", b"-", b"000000x", b"\xff" * 255):
        assert wide.lookup(root, name) is None


def test_cookies_resume_behind_their_entry(wide: Image) -> None:
    root = wide.inode(wide.root_nid)
    entries = list(wide.iter_dir_from(root, 0))
    assert len({cookie for *_entry, cookie in entries}) == len(entries)
    assert all(cookie > 0 for *_entry, cookie in entries)
    for at in (*range(0, len(entries), 37), len(entries) - 1):
        assert list(wide.iter_dir_from(root, entries[at][3])) == entries[at + 1 :]


def test_cookies_never_handed_out_stay_inside(wide: Image) -> None:
    root = wide.inode(wide.root_nid)
    entries = list(wide.iter_dir_from(root, 0))
    for cookie in (-1, 4000, 8191, 1 << 40):
        rest = list(wide.iter_dir_from(root, cookie))
        assert rest == entries[len(entries) - len(rest) :]


def test_times_before_1970_have_positive_nanoseconds() -> None:
    file = make_file(b"")
    file.mtime_ns = -1
    inode = find(Image(write(make_directory(f=file))), b"f")
    assert (inode.mtime_s, inode.mtime_ns) == (-1, 999_999_999)


def test_short_buffers_are_refused() -> None:
    with pytest.raises(FormatError, match="only 4095 bytes"):
        Image(bytes(4095))


def set_bytes(at: int, *values: int) -> Callable[[bytearray], None]:
    def change(image: bytearray) -> None:
        image[at : at + len(values)] = bytes(values)

    return change


@pytest.mark.parametrize(
    ("at", "values", "error"),
    [
        (1024, (0, 0), FormatError),  # magic
        (1024 + 12, (9,), UnsupportedVersion),  # 512-byte blocks
        (1024 + 13, (1,), UnsupportedVersion),  # longer superblock
        (1024 + 36, (0, 0, 0, 0), FormatError),  # blocks
        (1024 + 40, (1,), UnsupportedVersion),  # first metadata block
        (1024 + 80, (1,), UnsupportedVersion),  # incompatible features
        (1024 + 86, (1,), UnsupportedVersion),  # devices
    ],
)
def test_superblocks_not_of_bootfs_are_refused(
    at: int, values: tuple[int, ...], error: type[FormatError]
) -> None:
    image = bytearray(write(make_directory()))
    image[at : at + len(values)] = bytes(values)
    with pytest.raises(error) as caught:
        reseal(image)
    assert type(caught.value) is error


def test_checksum_guards_the_first_block() -> None:
    image = bytearray(write(make_directory()))
    image[4095] ^= 1
    with pytest.raises(FormatError, match="checksum"):
        Image(image)


@pytest.mark.parametrize("nid", [-1, 0, 35, 127, 1 << 59])
def test_inodes_outside_the_bootstrap_are_refused(nid: int) -> None:
    image = Image(write(make_directory()))
    with pytest.raises(FormatError, match="lies outside"):
        image.inode(nid)


@pytest.mark.parametrize(
    ("path", "at", "form", "value"),
    [
        (b"f", 0, "<H", 0),  # a compact inode
        (b"f", 0, "<H", 1 | 3 << 1),  # compressed
        (b"f", 0, "<H", 5),  # a tail of a regular file
        (b"f", 2, "<H", 0xFFFF),  # xattrs beyond the end
        (b"f", 4, "<H", 0o030644),  # unknown kind
        (b"f", 6, "<H", 1),  # high bits of a block number
        (b"f", 8, "<Q", 4097),  # longer than the data region
        (b"f", 8, "<Q", 1 << 63),
        (b"f", 16, "<I", 0),  # contents in the bootstrap
        (b"f", 16, "<I", 0xFFFFFFFF),
        (b"f", 40, "<I", 1_000_000_000),  # nanoseconds
        (b"f", 44, "<I", 0),  # links
        (b"d", 8, "<Q", 0),
        (b"d", 8, "<Q", 1 << 40),
        (b"d", 8, "<Q", 4096),
        (b"l", 8, "<Q", 0),
        (b"l", 8, "<Q", 4096),
        (b"l", 8, "<Q", 4095),  # a tail that crosses its block
        (b"l", 0, "<H", 1),  # contents at block 0
        (b"p", 8, "<Q", 1),
    ],
)
def test_damaged_inodes_are_refused(path: bytes, at: int, form: str, value: int) -> None:
    fifo = Node(0o010644)
    root = make_directory(d=make_directory(), f=make_file(b"x"), l=make_link(b"t"), p=fifo)
    image = bytearray(write(root))
    nid = find(Image(image), path).nid
    struct.pack_into(form, image, nid * 32 + at, value)
    damaged = reseal(image)
    with pytest.raises(FormatError) as caught:
        damaged.inode(nid)
    assert caught.value.offset == nid * 32


def damaged_directory(change: Callable[[bytearray], None]) -> tuple[Image, Inode]:
    """Return a directory of ``.``, ``..``, ``aa``, ``bb`` whose bytes were changed."""
    image = bytearray(write(make_directory(d=make_directory(aa=make_file(b""), bb=make_file(b"")))))
    directory = find(Image(image), b"d")
    at = directory.tail_at
    entries = image[at : at + directory.size]
    assert bytes(entries[48:]) == b"...aabb"
    change(entries)
    image[at : at + directory.size] = entries
    damaged = reseal(image)
    return damaged, damaged.inode(directory.nid)


@pytest.mark.parametrize(
    "change",
    [
        set_bytes(8, 0),  # no entries
        set_bytes(8, 47),  # not a multiple of an entry
        set_bytes(8, 0xFC, 0xFF),  # names behind the end
        set_bytes(20, 60),  # a name behind the end
        set_bytes(20, 48),  # an empty name
        set_bytes(32, 48),  # names that run backwards
        set_bytes(10, 0),  # unknown file type
        set_bytes(46, 8),
        set_bytes(51, ord("c")),  # not sorted
        set_bytes(53, ord("/")),
        set_bytes(52, 0),  # a name of zero bytes inside
        set_bytes(53, 0),  # the last name empty
        set_bytes(51, ord("b"), ord("b")),  # a name twice
    ],
)
def test_damaged_directories_are_refused(change: Callable[[bytearray], None]) -> None:
    image, directory = damaged_directory(change)
    with pytest.raises(FormatError, match="directory"):
        list(image.iter_dir(directory))


def test_lookup_checks_the_names_it_reads() -> None:
    image, directory = damaged_directory(set_bytes(32, 0xFF, 0xFF))
    with pytest.raises(FormatError, match="directory"):
        image.lookup(directory, b"aa")


def test_blocks_out_of_order_are_refused(wide: Image) -> None:
    root = make_directory()
    for number in range(1000):
        root.children[b"%06d" % number] = make_file(b"")
    image = bytearray(write(root))
    at = Image(image).inode(36).blocks_at
    image[at : at + 8192] = image[at + 4096 : at + 8192] + image[at : at + 4096]
    damaged = reseal(image)
    with pytest.raises(FormatError, match="not sorted after the block before"):
        list(damaged.iter_dir(damaged.inode(36)))


@pytest.mark.parametrize("call", [Image.readlink, Image.iter_dir, Image.lookup])
def test_calls_for_another_kind_are_refused(call: Callable[..., object]) -> None:
    image = Image(write(make_directory(f=make_file(b""))))
    inode = find(image, b"f")
    with pytest.raises(FormatError, match="is not a"):
        if call is Image.iter_dir:
            list(image.iter_dir(inode))
        elif call is Image.lookup:
            image.lookup(inode, b"x")
        else:
            image.readlink(inode)


def test_zero_byte_in_a_target_is_refused() -> None:
    image = bytearray(write(make_directory(link=make_link(b"target"))))
    link = find(Image(image), b"link")
    image[link.tail_at + 2] = 0
    damaged = reseal(image)
    with pytest.raises(FormatError, match="zero byte"):
        damaged.readlink(damaged.inode(link.nid))


@pytest.mark.parametrize(
    "change",
    [
        set_bytes(4, 1),  # a shared xattr
        set_bytes(12, 0),  # no name, which a whole name only may have
        set_bytes(12, 200),  # a name over the end
        set_bytes(13, 5),  # an unknown prefix
        set_bytes(13, 2),  # a whole name and more
        set_bytes(14, 0xFF, 0xFF),  # a value over the end
        set_bytes(16, 0),  # a name with a zero byte
        set_bytes(24, ord("a")),  # the same name twice
    ],
)
def test_damaged_xattrs_are_refused(change: Callable[[bytearray], None]) -> None:
    file = make_file(b"")
    file.xattrs = {b"user.a": b"123", b"user.b": b"456"}
    image = bytearray(write(make_directory(f=file)))
    nid = find(Image(image), b"f").nid
    at = nid * 32 + 64
    area = image[at : at + 28]
    assert bytes(area[12:]) == b"\1\1\3\0a123\1\1\3\0b456"
    change(area)
    image[at : at + 28] = area
    damaged = reseal(image)
    with pytest.raises(FormatError):
        damaged.xattrs(damaged.inode(nid))
