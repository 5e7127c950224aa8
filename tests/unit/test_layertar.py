"""What a layer holds of a tree, and what it cannot."""

import io
import stat
import tarfile

import pytest

from converter.layertar import iter_layer
from converter.tree import Content, Node, Segment
from store.errors import UnsupportedEntry
from tests.support.trees import MemoryBlob, make_directory, make_file, make_link


def entries(root: Node) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(iter_layer(root, sparse=False)))) as tar:
        return {entry.name: entry for entry in tar}


def test_other_programs_read_it() -> None:
    linked = make_file(b"linked", mode=0o4755)
    linked.xattrs = {b"security.capability": b"\x01\0\xff"}
    linked.mtime_ns = 1_700_000_000_000_000_001
    tree = make_directory(
        d=make_directory(a=linked, link=make_link(b"a")),
        other=linked,
        device=Node(stat.S_IFBLK | 0o600, device=(8, 1)),
    )
    found = entries(tree)
    assert list(found) == [".", "./d", "./d/a", "./d/link", "./device", "./other"]
    assert found["./d/a"].mode == 0o4755
    assert found["./d/a"].pax_headers["mtime"] == "1700000000.000000001"
    assert found["./d/a"].pax_headers["SCHILY.xattr.security.capability"] == "\x01\0\udcff"
    assert (found["./other"].type, found["./other"].linkname) == (tarfile.LNKTYPE, "./d/a")
    assert (found["./device"].devmajor, found["./device"].devminor) == (8, 1)
    assert found["./d/link"].linkname == "a"


def test_holes_are_kept() -> None:
    data = b"x" * 5_000
    segments = (Segment(1 << 30, len(data), MemoryBlob(data), 0),)
    tree = make_directory(
        hollow=Node(stat.S_IFREG | 0o644, content=Content(1 << 40)),
        sparse=Node(stat.S_IFREG | 0o644, content=Content(3 << 30, segments)),
    )
    tar = b"".join(iter_layer(tree, sparse=True))
    assert len(tar) < 20_000
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        assert opened.getmember("./hollow").size == 1 << 40
        sparse = opened.extractfile("./sparse")
        assert sparse is not None and opened.getmember("./sparse").size == 3 << 30
        sparse.seek((1 << 30) - 2)
        assert sparse.read(5_004) == b"\0\0" + data + b"\0\0"


def test_holes_can_be_zeros() -> None:
    segments = (
        Segment(3 << 20, 5, MemoryBlob(b"first"), 0),
        Segment(4 << 20, 6, MemoryBlob(b"second"), 0),
    )
    content = Content((5 << 20) + 1, segments)
    tree = make_directory(f=Node(stat.S_IFREG | 0o644, content=content))
    with tarfile.open(fileobj=io.BytesIO(b"".join(iter_layer(tree, sparse=False)))) as opened:
        member = opened.getmember("./f")
        file = opened.extractfile(member)
        assert file is not None and not member.issparse()
        assert file.read() == content.pread(0, content.size)


def with_xattr(name: bytes, value: bytes) -> Node:
    node = make_file(b"x")
    node.xattrs = {name: value}
    return node


@pytest.mark.parametrize(
    "node",
    [
        Node(stat.S_IFSOCK | 0o600),
        Node(stat.S_IFCHR | 0o600, device=(0, 0)),
        with_xattr(b"user.empty", b""),
        with_xattr(b"user.a=b", b"x"),
    ],
)
def test_what_no_layer_holds_is_refused_by_its_path(node: Node) -> None:
    with pytest.raises(UnsupportedEntry, match=r"^/d/name: "):
        list(iter_layer(make_directory(d=make_directory(name=node)), sparse=True))


def test_a_name_that_would_be_a_whiteout_is_refused() -> None:
    directory = make_directory()
    directory.children[b".wh.name"] = make_file(b"")
    with pytest.raises(UnsupportedEntry, match=r"^/\.wh\.name: "):
        list(iter_layer(directory, sparse=True))
