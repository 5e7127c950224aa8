"""A bootstrap that is malformed, though its digests are right, costs what it says wrongly: EIO."""

from __future__ import annotations

import dataclasses
import errno
import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from store.errors import FormatError
from store.format.bootconfig import encode_boot_config, parse_boot_config
from store.format.chunkindex import FRAME, encode_chunk_index, parse_chunk_index
from store.format.digest import digest_of
from store.format.erofs import Image, Inode
from store.format.erofslayout import DIRENT, SLOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Engine

pytestmark = pytest.mark.system

TREE = """\
FROM debian:bookworm-slim
RUN mkdir -p /odd/listed /odd/below /odd/fine && echo content | tee /odd/listed/file \\
    /odd/below/file /odd/fine/file /odd/attributes && ln -s fine /odd/link
"""
FILES = ("bootstrap", "chunk-index", "config")


def find(image: Image, path: str) -> Inode:
    """Give the inode of a path."""
    inode = image.inode(image.root_nid)
    for name in path.encode().split(b"/"):
        nid = image.lookup(inode, name)
        assert nid is not None
        inode = image.inode(nid)
    return inode


def damage(plain: bytes) -> bytes:
    """Give the bootstrap with four inodes of /odd made wrong, each in another way."""
    image = Image(plain)
    link, listed = find(image, "odd/link"), find(image, "odd/listed")
    attributes, below = find(image, "odd/attributes"), find(image, "odd/below/file")
    found = bytearray(plain)
    assert link.tail_at
    assert listed.tail_at
    found[link.tail_at] = 0
    # The offset of the first name, which says how many entries there are.
    struct.pack_into("<H", found, listed.tail_at + 8, DIRENT.size + 1)
    # Xattrs: what follows the inode is none.
    struct.pack_into("<H", found, attributes.nid * SLOT + 2, 2)
    struct.pack_into("<H", found, below.nid * SLOT, 0xFFFF)
    wrong = Image(found)
    for refused, inode in ((wrong.readlink, link), (wrong.xattrs, find(wrong, "odd/attributes"))):
        with pytest.raises(FormatError):
            refused(inode)
    with pytest.raises(FormatError):
        list(wrong.iter_dir(listed))
    with pytest.raises(FormatError):
        wrong.inode(below.nid)
    return bytes(found)


def rebuild(engine: Engine, image: Converted, directory: Path) -> Converted:
    """Give the boot image with a damaged bootstrap, and everything that names its digests."""
    container = engine.create(image.boot)
    for name in FILES:
        command = ["docker", "cp", f"{container.name}:/.bootfs/image/{name}", str(directory)]
        subprocess.run(command, check=True, capture_output=True)
    bootstrap = damage((directory / "bootstrap").read_bytes())
    index = parse_chunk_index((directory / "chunk-index").read_bytes())
    assert len(bootstrap) == index.bootstrap_size
    index.frame_digests = [
        digest_of(bootstrap[at : at + FRAME]) for at in range(0, len(bootstrap), FRAME)
    ]
    encoded = encode_chunk_index(index)
    config = parse_boot_config((directory / "config").read_bytes())
    config.chunk_index = digest_of(encoded)
    (directory / "bootstrap").write_bytes(bootstrap)
    (directory / "chunk-index").write_bytes(encoded)
    (directory / "config").write_bytes(encode_boot_config(config))
    dockerfile = f"FROM {image.boot}\nCOPY {' '.join(FILES)} /.bootfs/image/\n"
    return dataclasses.replace(image, boot=engine.build(dockerfile, directory), mode="fuse")


def outcome(action: Callable[[], object]) -> int:
    """Give the errno that an action ends with, 0 when it succeeds."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


def test_in_mode_fuse_it_is_an_error_of_whoever_asks(
    engine: Engine, conversions: Conversions, tmp_path: Path
) -> None:
    image = rebuild(engine, conversions.convert(conversions.engine.build(TREE)), tmp_path)
    container = image.start(engine, "sleep", "1000")
    odd = Path(f"/proc/{container.pid()}/root/odd")
    for _ in range(2):
        assert outcome(lambda: os.readlink(odd / "link")) == errno.EIO
        assert outcome(lambda: os.listdir(odd / "listed")) == errno.EIO
        assert outcome(lambda: os.stat(odd / "listed" / "file")) == errno.EIO
        assert outcome(lambda: os.getxattr(odd / "attributes", "user.any")) == errno.EIO
        assert outcome(lambda: os.listxattr(odd / "attributes")) == errno.EIO
        assert outcome(lambda: os.stat(odd / "below" / "file")) == errno.EIO
        assert outcome(lambda: os.listdir(odd / "below")) == errno.EIO
    assert (odd / "fine" / "file").read_text() == "content\n"
    assert container.run("cat", "/odd/fine/file").stdout == "content\n"
    lines = [line for line in container.logs().splitlines() if line.startswith("bootfs: ")]
    assert len(lines) == len(set(lines)) == 4, lines
    assert all(line.startswith("bootfs: bootstrap") for line in lines), lines
