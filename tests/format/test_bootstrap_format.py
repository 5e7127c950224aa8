"""The bootstrap's bytes do not change unseen, and the tables of docs/format.md describe them."""

from __future__ import annotations

import hashlib
import re
import stat
from pathlib import Path
from struct import Struct

import pytest

from converter.erofswriter import write_bootstrap
from converter.tree import Node
from store.format.erofslayout import DIRENT, INODE, SUPERBLOCK, XATTR_ENTRY, XATTR_HEADER
from tests.support.trees import DataRegion, make_directory, make_file, make_link

DOCS = Path(__file__).parents[2] / "docs"
KNOWN_DIGEST = "b9e7680884354647217b7d61f1688c39b610b4da5c34e0f6fa32c23c281c2aa5"


def documented_tables() -> list[list[tuple[int, int]]]:
    """Return offsets and sizes of the field tables of the section about the bootstrap."""
    text = "\n".join(path.read_text() for path in sorted(DOCS.glob("format*.md")))
    section = text.partition("## Bootstrap (EROFS)\n")[2]
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]
    tables = re.findall(r"\| offset \| size \| field \|\n\|[-:|]+\|\n((?:\|.*\|\n)+)", section)
    rows = r"^\| (\d+) \| (\d+) \|"
    return [
        [(int(at), int(size)) for at, size in re.findall(rows, table, re.MULTILINE)]
        for table in tables
    ]


@pytest.mark.parametrize(
    ("number", "struct"), list(enumerate([SUPERBLOCK, INODE, DIRENT, XATTR_HEADER, XATTR_ENTRY]))
)
def test_documented_fields_tile_the_struct(number: int, struct: Struct) -> None:
    end = 0
    for at, size in documented_tables()[number]:
        assert at == end
        end += size
    assert end == struct.size


def test_bootstrap_of_a_known_tree() -> None:
    """Changing this digest changes every image's: it needs a new version of the format."""
    file = make_file(b"hello\n", mode=0o4755)
    file.uid, file.gid, file.mtime_ns = 70_000, 80_000, -1
    file.xattrs = {b"user.a": b"1", b"security.b": b"22"}
    wide = make_directory()
    for number in range(400):
        wide.children[b"entry-%d" % number] = file if number == 7 else make_file(b"x" * number)
    root = make_directory(
        file=file,
        wide=wide,
        link=make_link(b"file"),
        long=make_link(b"l" * 4095),
        null=Node(stat.S_IFCHR | 0o666, device=(1, 3)),
        fifo=Node(stat.S_IFIFO | 0o644),
    )
    region = DataRegion(root)
    bootstrap = write_bootstrap(root, region.extents, region.size)
    assert bootstrap.data_start == 2 << 20
    assert hashlib.sha256(bootstrap.plain).hexdigest() == KNOWN_DIGEST
