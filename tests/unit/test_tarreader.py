"""Tar entries of every dialect, exactly; and nothing but errors of ours for the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from converter.spool import Spool
from converter.tarreader import (
    DIRECTORY_MEMORY,
    HEADER_LIMIT,
    NODE_MEMORY,
    RUN_MEMORY,
    XATTR_MEMORY,
    Budget,
    Entry,
    iter_entries,
    sum_of,
)
from store.errors import BootfsError, ConvertError, FormatError, SizeMismatch, UnsupportedEntry
from tests.support.layers import (
    Member,
    block_device,
    directory,
    fifo,
    file,
    hardlink,
    symlink,
    tar_of,
)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path) as opened:
        yield opened


def entries(spool: Spool, tar: bytes, budget: Budget | None = None) -> list[Entry]:
    return list(iter_entries(spool.store("tar", tar), budget or Budget()))


def contents(entry: Entry) -> bytes:
    return entry.content.pread(0, entry.content.size)


def with_checksum(header: bytes) -> bytes:
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(blank) + header[156:]


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, 2])
def test_every_kind(spool: Spool, tar_format: Literal[0, 1, 2]) -> None:
    tar = tar_of(
        directory("d/", mode=0o1777, uid=1, gid=2),
        file("d/f", b"data", mode=0o4755, mtime=77),
        hardlink("h", "d/f"),
        symlink("s", "d/f"),
        block_device("b", 8, 300),
        fifo("p"),
        tar_format=tar_format,
    )
    folder, regular, hard, soft, device, pipe = entries(spool, tar)
    assert (folder.kind, folder.mode, folder.uid, folder.gid) == (b"5", 0o1777, 1, 2)
    assert (regular.kind, regular.name, regular.mode) == (b"0", b"d/f", 0o4755)
    assert (contents(regular), regular.mtime_ns) == (b"data", 77_000_000_000)
    assert (hard.kind, hard.link) == (b"1", b"d/f")
    assert (soft.kind, soft.link) == (b"2", b"d/f")
    assert (device.kind, device.device) == (b"4", (8, 300))
    assert pipe.kind == b"6"


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_strange_names(spool: Spool, tar_format: Literal[1, 2]) -> None:
    name = b"\xff\xfe/" + b"n" * 250
    found = entries(spool, tar_of(symlink(name, b"\x80" * 300), tar_format=tar_format))
    assert [(entry.name, entry.link) for entry in found] == [(name, b"\x80" * 300)]


def test_ustar_prefix(spool: Spool) -> None:
    name = "p" * 90 + "/" + "n" * 90
    (found,) = entries(spool, tar_of(file(name), tar_format=tarfile.USTAR_FORMAT))
    assert found.name == name.encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1.5", 1_500_000_000),
        ("-1.5", -1_500_000_000),
        ("-0.000000001", -1),
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("1700000000.1234567899999", 1_700_000_000_123_456_789),
        ("9007199254740993.000000001", 9_007_199_254_740_993_000_000_001),
        ("3.", 3_000_000_000),
    ],
)
def test_pax_times_are_exact(spool: Spool, text: str, expected: int) -> None:
    (found,) = entries(spool, tar_of(file("a", pax={"mtime": text})))
    assert found.mtime_ns == expected


@pytest.mark.parametrize("text", ["x", "1e3", "--1", "1_0", " 1", "1.5.5", "9" * 30])
def test_bad_pax_times_are_refused(spool: Spool, text: str) -> None:
    with pytest.raises(FormatError):
        entries(spool, tar_of(file("a", pax={"mtime": text})))


def test_base_256_numbers_both_signs(spool: Spool) -> None:
    tar = tar_of(file("a", uid=4_000_000_000, mtime=-5), tar_format=tarfile.GNU_FORMAT)
    (found,) = entries(spool, tar)
    assert (found.uid, found.mtime_ns) == (4_000_000_000, -5_000_000_000)


def test_pax_numbers_override(spool: Spool) -> None:
    member = file("a", b"12345", pax={"uid": "4294967295", "gid": "7", "size": "5"})
    (found,) = entries(spool, tar_of(member))
    assert (found.uid, found.gid, contents(found)) == (0xFFFFFFFF, 7, b"12345")


def test_xattrs_are_binary(spool: Spool) -> None:
    value = bytes(range(256))
    (found,) = entries(spool, tar_of(file("a", xattrs={"security.x=y": value, "user.e": b""})))
    # A "=" ends the key, as in Go; an empty value is none.
    assert found.xattrs == {b"security.x": b"y=" + value}


def test_global_headers_are_passed_over(spool: Spool) -> None:
    info = tarfile.TarInfo("a")
    head = info.create_pax_global_header({"comment": "x", "uid": "7"})
    (found,) = entries(spool, head + tar_of(file("a")))
    assert (found.name, found.uid) == (b"a", 0)


def test_archive_may_end_without_zero_blocks(spool: Spool) -> None:
    tar = tar_of(file("a", b"x"))
    assert len(entries(spool, tar[:-1024])) == 1
    assert len(entries(spool, tar[:-512])) == 1
    assert entries(spool, b"") == []


def test_a_slash_made_directories_before_ustar(spool: Spool) -> None:
    header = bytearray(directory("old/").info.tobuf(tarfile.USTAR_FORMAT))
    header[156] = 0
    header[257:265] = bytes(8)
    (found,) = entries(spool, with_checksum(bytes(header)) + bytes(1024))
    assert (found.kind, found.name) == (b"5", b"old/")


def test_signed_checksums_of_old_writers(spool: Spool) -> None:
    header = bytearray(file(b"\xff\xff").info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
    header[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in header)
    header[148:156] = b"%06o\0 " % signed
    (found,) = entries(spool, bytes(header) + bytes(1024))
    assert found.name == b"\xff\xff"


def test_size_means_nothing_but_for_files(spool: Spool) -> None:
    link = symlink("s", "t")
    link.info.size = 512
    tar = link.info.tobuf(tarfile.GNU_FORMAT) + tar_of(file("a", b"x"))
    assert [entry.name for entry in entries(spool, tar)] == [b"s", b"a"]


@pytest.mark.parametrize("version", ["gnu", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("holes", [1, 30, 300])
def test_sparse_files_as_gnu_tar_writes_them(
    tmp_path: Path, spool: Spool, version: str, holes: int
) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as out:
        for number in range(holes):
            out.seek(number * 65536 + 16384)
            out.write(b"%06d" % number * 1000)
        out.truncate(holes * 65536)
    tar = tmp_path / "x.tar"
    kind = ["--format=gnu"] if version == "gnu" else ["--format=pax", f"--sparse-version={version}"]
    subprocess.run(["tar", "-C", tmp_path, *kind, "-S", "-cf", tar, "sparse"], check=True)
    subprocess.run(["tar", "-C", tmp_path, *kind, "-S", "-rf", tar, "sparse"], check=True)
    found = entries(spool, tar.read_bytes())
    assert [entry.name for entry in found] == [b"sparse", b"sparse"]
    for entry in found:
        assert contents(entry) == source.read_bytes()
        stored = sum(segment.size for segment in entry.content.segments)
        assert stored <= source.stat().st_blocks * 512
        assert len(entry.content.segments) == holes


def test_file_that_is_one_hole(tmp_path: Path, spool: Spool) -> None:
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 1 << 33)
    tar = tmp_path / "x.tar"
    subprocess.run(["tar", "-C", tmp_path, "--format=pax", "-Scf", tar, "hole"], check=True)
    (found,) = entries(spool, tar.read_bytes())
    assert (found.content.size, found.content.segments) == (1 << 33, ())


@pytest.mark.parametrize(
    "pax",
    [
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,2,1,1"},
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,20"},
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,3,5"},
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,2"},
        {"GNU.sparse.size": "10", "GNU.sparse.map": "0,x"},
        {"GNU.sparse.size": "9223372036854775808", "GNU.sparse.map": "0,3"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"},
        {"size": "-1"},
        {"uid": "99999999999999999999"},
    ],
)
def test_maps_and_numbers_out_of_place_are_refused(spool: Spool, pax: dict[str, str]) -> None:
    with pytest.raises(FormatError):
        entries(spool, tar_of(file("a", b"abc", pax=pax)))


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\x80\0\0\0\x80" + bytes(7)])
def test_a_sparse_file_of_an_impossible_size_is_refused(spool: Spool, size: bytes) -> None:
    header = bytearray(tar_of(file("s"), tar_format=tarfile.GNU_FORMAT)[:512])
    header[156:157] = b"S"
    header[483:495] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(FormatError, match="is impossible"):
        entries(spool, bytes(header) + bytes(1024))


@pytest.mark.parametrize("pax", [{"uid": "4294967296"}, {"gid": "-1"}])
def test_owners_beyond_32_bits_are_refused(spool: Spool, pax: dict[str, str]) -> None:
    with pytest.raises(UnsupportedEntry, match="owner"):
        entries(spool, tar_of(file("a", pax=pax)))


def test_unknown_types_are_refused(spool: Spool) -> None:
    info = tarfile.TarInfo("label")
    info.type = b"V"
    with pytest.raises(UnsupportedEntry, match="label"):
        entries(spool, tar_of(Member(info)))


def test_a_name_with_a_zero_byte_is_refused(spool: Spool) -> None:
    with pytest.raises(FormatError, match="zero byte"):
        entries(spool, tar_of(file("a", pax={"path": "a\0b"})))


@pytest.mark.parametrize(
    "records", [b"x", b"5 a=b\n", b"6 abc\n", b"9999 a=b\n", b"6 a=bc", b"4 =\n"]
)
def test_damaged_pax_records_are_refused(spool: Spool, records: bytes) -> None:
    info = tarfile.TarInfo("h")
    info.type = b"x"
    with pytest.raises(FormatError):
        entries(spool, tar_of(Member(info, records), file("a")))


def test_extended_header_without_an_entry_is_refused(spool: Spool) -> None:
    info = tarfile.TarInfo("h")
    info.type = b"x"
    with pytest.raises(FormatError, match="extended header"):
        entries(spool, tar_of(Member(info, b"9 uid=12\n"[:9])))


def test_long_headers_are_refused_unread(spool: Spool) -> None:
    info = tarfile.TarInfo("h")
    info.type = b"x"
    member = Member(info)
    info.size = HEADER_LIMIT + 1
    with pytest.raises(ConvertError, match="limit is 1,048,576"):
        entries(spool, member.tobytes(tarfile.GNU_FORMAT))


@pytest.mark.parametrize(
    ("member", "memory"),
    [
        (file("f"), NODE_MEMORY + 1),
        (file("f", b"data"), NODE_MEMORY + RUN_MEMORY + 1),
        (directory("d/"), DIRECTORY_MEMORY + 2),
        (symlink("s", "target"), NODE_MEMORY + 1 + 2 * 6),
        (file("f", xattrs={"user.a": b"xyz"}), NODE_MEMORY + 1 + XATTR_MEMORY + 2 * 9),
        (
            file("f", b"abc", pax={"GNU.sparse.size": "10", "GNU.sparse.map": "0,2,5,1"}),
            NODE_MEMORY + 2 * RUN_MEMORY + 1,
        ),
    ],
)
def test_a_budget_bounds_what_entries_take(spool: Spool, member: Member, memory: int) -> None:
    tar = tar_of(*[member] * 10)
    assert len(entries(spool, tar, Budget(10 * memory))) == 10
    with pytest.raises(ConvertError, match=r"more memory than the limit of .* MB, some .* files"):
        entries(spool, tar, Budget(10 * memory - 1))


@pytest.mark.parametrize("kind", ["files", "data", "devices", "links", "directories"])
def test_entries_take_no_more_memory_than_is_reckoned(tmp_path: Path, kind: str) -> None:
    """At the peak of a conversion, in a process of its own, with numbers that are all different."""
    count = 40_000
    with (tmp_path / "layer").open("wb") as layer:
        for number in range(count):
            name, fields = f"d{number // 1000}/{number:010d}", {"mtime": 10**9 + number}
            member = {
                "files": lambda name=name, fields=fields: file(name, **fields),
                "data": lambda name=name, fields=fields: file(name, b"x", **fields),
                "links": lambda name=name, fields=fields: symlink(name, name, **fields),
                "directories": lambda name=name, fields=fields: directory(name, **fields),
                "devices": lambda name=name, fields=fields: block_device(name, 1, 7, **fields),
            }[kind]()
            layer.write(member.tobytes(tarfile.GNU_FORMAT))
        layer.write(bytes(1024))
    code = f"""
import hashlib
from pathlib import Path
from converter.erofswriter import write_bootstrap
from converter.images.view import LayerSource
from converter.layers import merge_layers
from converter.order import lay_out
from converter.spool import Spool
from converter.tarreader import Budget
def peak():
    # Not getrusage, which goes on from what this process was before it became Python.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
with Spool() as spool:
    blob = spool.open_file(Path({str(tmp_path / "layer")!r}))
    hashed = hashlib.sha256()
    for piece in blob.iter_pieces():
        hashed.update(piece)
    budget = Budget()
    before = peak()
    tree = merge_layers([LayerSource("sha256:" + hashed.hexdigest(), "", "", blob)], spool, budget)
    region = lay_out(tree)
    write_bootstrap(tree, region.extents, region.size)
    print(peak() - before, budget.used)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    taken, reckoned = map(int, done.stdout.split())
    pieces = 2 * (4 << 20)  # of the layer, while it is verified
    assert reckoned / 2 < taken < reckoned + pieces


@given(st.binary(max_size=512))
@example(b"\xff" * 512)
@example(bytes(512))
def test_sums_of_blocks_are_sums(block: bytes) -> None:
    assert sum_of(block) == sum(block)


SMALL = tar_of(
    directory("d/"),
    file("d/" + "n" * 120, b"x" * 700, xattrs={"user.a": b"v"}),
    symlink("s", "t" * 120),
    file("last", b"y" * 512),
)


def test_truncation_at_every_block_is_told_or_ends_an_entry(spool: Spool) -> None:
    whole = [(entry.name, contents(entry)) for entry in entries(spool, SMALL)]
    for end in range(0, len(SMALL), 512):
        try:
            found = [(entry.name, contents(entry)) for entry in entries(spool, SMALL[:end])]
        except (FormatError, SizeMismatch):
            continue
        assert found == whole[: len(found)]


def test_truncation_within_a_block_is_told(spool: Spool) -> None:
    # Up to the padding of the last file, whose loss loses nothing.
    for end in range(1, len(SMALL) - 1024, 7):
        if end % 512:
            with pytest.raises((FormatError, SizeMismatch)):
                entries(spool, SMALL[:end])


def test_flipped_bits_in_headers_are_told(spool: Spool) -> None:
    tar = tar_of(file("a", b"data"))
    for bit in range(0, 512 * 8, 5):
        damaged = bytearray(tar)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            entries(spool, bytes(damaged))
        except BootfsError:
            continue
        # Bits of the checksum field that say the same, such as a space for a zero byte.
        assert 148 <= bit // 8 < 156
