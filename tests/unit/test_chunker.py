from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import chunker
from converter.chunker import CHUNK_MAX, CHUNK_MIN, Piece, cut
from converter.order import SMALL, Stream, lay_out, padded
from converter.tree import Content, Node, Segment
from store.format.chunkindex import BLOCK
from tests.support.trees import MemoryBlob, iter_tree, make_directory, make_file, random_tree


def stream_of(*files: Node) -> Stream:
    return Stream(0, sum(padded(file.content.size) for file in files), files)


def bytes_of(stream: Stream) -> bytes:
    out = b""
    for file in stream.files:
        data = file.content.pread(0, file.content.size)
        out += data + bytes(-len(data) % BLOCK)
    return out


def check_tiles(stream: Stream, pieces: list[Piece]) -> None:
    assert sum(piece.size for piece in pieces) == stream.size
    assert b"".join(bytes(p.size) if p.plain is None else p.plain for p in pieces) == bytes_of(
        stream
    )
    for piece in pieces:
        if piece.plain is None:
            assert piece.size > 0 and piece.size % BLOCK == 0
        else:
            assert 0 < piece.size == len(piece.plain) <= CHUNK_MAX


@given(st.integers(), st.lists(st.integers(0, 400_000), min_size=1, max_size=5))
@settings(max_examples=30)
def test_pieces_tile_the_stream(seed: int, sizes: list[int]) -> None:
    random = Random(seed)
    stream = stream_of(*(make_file(random.randbytes(size)) for size in sizes if size))
    pieces = list(cut(stream))
    check_tiles(stream, pieces)
    assert all(piece.size >= CHUNK_MIN for piece in pieces[:-1])


@pytest.mark.parametrize("window", [CHUNK_MAX, CHUNK_MAX + 1, 300_007, 1 << 20])
@pytest.mark.parametrize("kind", ["noise", "zeros", "text"])
def test_cuts_do_not_depend_on_the_window(
    window: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {
        "noise": Random(1).randbytes(3_000_000),
        "zeros": bytes(3_000_000),
        "text": b"".join(b"line %d of a text\n" % n for n in range(150_000)),
    }[kind]
    stream = stream_of(make_file(made), make_file(made[:5000]))
    at_once = list(cut(stream))
    monkeypatch.setattr(chunker, "WINDOW", window)
    assert list(cut(stream)) == at_once


def test_an_insertion_moves_the_cuts_around_it_and_no_others() -> None:
    data = Random(3).randbytes(2_000_000)
    before = {p.plain for p in cut(stream_of(make_file(data)))}
    after = {p.plain for p in cut(stream_of(make_file(data[:1000] + b"new" + data[1000:])))}
    assert len(after - before) <= 4


def sparse(size: int, *runs: tuple[int, bytes]) -> Node:
    segments = tuple(Segment(at, len(data), MemoryBlob(data), 0) for at, data in runs)
    return Node(0o100644, content=Content(size, segments))


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (sparse(100), [None]),
        (sparse(10 * BLOCK), [None]),
        (sparse(10 * BLOCK, (0, b"a")), [BLOCK, None]),
        (sparse(10 * BLOCK, (BLOCK - 1, b"ab")), [2 * BLOCK, None]),
        (sparse(10 * BLOCK, (10 * BLOCK - 1, b"a")), [None, BLOCK]),
        (sparse(10 * BLOCK, (0, b"a"), (100, b"b"), (3 * BLOCK, b"c")), [BLOCK, None, BLOCK, None]),
        (sparse(3 * BLOCK, (0, b"a"), (BLOCK, b"b")), [2 * BLOCK, None]),
        (sparse(BLOCK + 1, (BLOCK, b"a")), [None, BLOCK]),
        (sparse((5 << 30) + 1, (5 << 30, b"a")), [None, BLOCK]),
    ],
)
def test_whole_blocks_of_holes_stay_holes(file: Node, expected: list[int | None]) -> None:
    pieces = list(cut(stream_of(file)))
    assert [None if p.plain is None else p.size for p in pieces] == expected
    if file.content.size < 1 << 20:
        check_tiles(stream_of(file), pieces)


@pytest.mark.parametrize("seed", range(20))
def test_random_trees_are_tiled(seed: int) -> None:
    tree = random_tree(Random(seed))
    if any(node.content.size > 1 << 30 for _, node in iter_tree(tree)):
        tree = make_directory(a=make_file(b"a"))
    region = lay_out(tree)
    at = 0
    for stream in region.streams:
        assert stream.start == at
        check_tiles(stream, list(cut(stream)))
        at += stream.size
    assert at == region.size


def test_small_files_of_a_directory_share_a_stream_and_large_ones_do_not() -> None:
    big = [make_file(bytes(SMALL)) for _ in range(2)]
    small = [make_file(b"x"), make_file(bytes(SMALL - 1)), make_file(b"y")]
    empty = make_file(b"")
    below = make_file(b"below")
    root = make_directory(
        a=big[0], b=small[0], c=small[1], d=make_directory(z=below), e=big[1], f=small[2], g=empty
    )
    region = lay_out(root)
    assert [stream.files for stream in region.streams] == [
        tuple(small),
        (big[0],),
        (big[1],),
        (below,),
    ]
    assert empty not in region.extents
    assert all(offset % BLOCK == 0 for offset in region.extents.values())
    assert list(region.extents.values()) == sorted(region.extents.values())


def test_a_file_of_several_names_lies_where_its_first_is() -> None:
    file, other = make_file(b"linked"), make_file(b"other")
    root = make_directory(a=make_directory(x=file), b=make_directory(x=other, y=file), c=file)
    region = lay_out(root)
    # The root's own files come before those of its directories.
    assert [stream.files for stream in region.streams] == [(file,), (other,)]
    assert region.size == 2 * BLOCK


def test_directories_come_in_the_order_of_their_paths() -> None:
    files = [make_file(b"%d" % n) for n in range(4)]
    root = make_directory(
        b=make_directory(f=files[2]),
        a=make_directory(x=make_directory(f=files[1]), f=files[0]),
    )
    root.children[b"c"] = make_directory(f=files[3])
    assert [s.files[0] for s in lay_out(root).streams] == files
