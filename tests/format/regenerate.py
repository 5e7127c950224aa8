"""Write the golden files of this format version: PYTHONPATH=. python tests/format/regenerate.py

They are what released versions wrote.  A change here is a change of the format: it takes a new
version and new files beside the old ones, which stay readable (docs/format.md, "Versions").
"""

from __future__ import annotations

import hashlib
import stat
import sys
import tempfile
from array import array
from pathlib import Path

from zstandard import ZstdCompressor

from converter.chunker import cut
from converter.order import Stream
from converter.tree import Content, Node, Segment
from store.format.bootconfig import BootConfig, encode_boot_config
from store.format.chunkindex import (
    BLOCK,
    FRAME,
    HOLE,
    REGION_ALIGNMENT,
    WITH_FILTERED,
    ChunkIndex,
    encode_chunk_index,
)
from store.format.digest import digest_of
from store.format.packfile import HEADER, VERSION, PackEntry, encode_header, encode_tail
from store.format.profile import Profile
from store.format.trace import ENTRY, encode_trace_head
from store.write.manifest import encode_manifest
from store.write.packwriter import compress
from store.write.profiles import encode_profiles, iter_hot_pack
from tests.support.stores import StoredImage
from tests.support.trees import MemoryBlob, make_directory, make_file, make_link

GOLDEN = Path(__file__).parent / "golden"

CHUNKS = [b"hello, chunk\n" * 20, b"not to be made smaller", b"x" * 4096]


def noise(name: str, size: int) -> bytes:
    """Return bytes that need no library's random numbers: SHA-256 of a counter."""
    blocks = (hashlib.sha256(b"%s %d" % (name.encode(), n)).digest() for n in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def calls() -> bytes:
    """Return what looks like code: calls of three places, from many."""
    code = bytearray()
    for number in range(60):
        code += noise(f"code {number}", number % 7) + b"\xe8"
        code += ((1, 900, 70_000)[number % 3] - len(code) - 4).to_bytes(4, "little", signed=True)
    return bytes(code) + b"\xc3\x90"


def make_pack() -> bytes:
    """Return a pack of `CHUNKS`."""
    return _packed(CHUNKS, 9, VERSION)


def make_filtered_pack() -> bytes:
    """Return a pack of `CHUNKS` and, filtered, of `calls`."""
    return _packed([*CHUNKS, calls()], 19, WITH_FILTERED)


def _packed(chunks: list[bytes], level: int, version: int) -> bytes:
    bodies = [compress(chunk, level) for chunk in chunks]
    entries, at = [], HEADER.size
    for chunk, body in zip(chunks, bodies, strict=True):
        entries.append(PackEntry(digest_of(chunk), at, len(body), len(chunk)))
        at += len(body)
    return encode_header(version) + b"".join(bodies) + encode_tail(entries, version)


def make_chunk_index() -> bytes:
    """Return a chunk index of two packs, four chunks, a hole, and a chunk that shows twice."""
    return _indexed(ChunkIndex())


def make_filtered_chunk_index() -> bytes:
    """Return the same of an image with filtered chunks."""
    index = ChunkIndex()
    index.version = WITH_FILTERED
    return _indexed(index)


def _indexed(index: ChunkIndex) -> bytes:
    index.bootstrap_size = FRAME + 1000
    index.data_start = REGION_ALIGNMENT
    index.data_size = 9 * BLOCK
    index.frame_starts = array("Q", [0, 5000, 5600])
    index.frame_digests = [digest_of(b"frame 0"), digest_of(b"frame 1")]
    index.pack_digests = [hashlib.sha256(b"pack %d" % n).digest() for n in range(2)]
    index.pack_sizes = array("Q", [20_000, 30_000])
    index.digests = b"".join(digest_of(b"chunk %d" % n) for n in range(4))
    index.plain_sizes = array("I", [BLOCK, 2 * BLOCK, BLOCK + 100, BLOCK - 100])
    index.stored_sizes = array("I", [1000, 2 * BLOCK, 1500, 2000])
    index.packs = array("I", [0, 0, 1, 1])
    index.offsets = array("Q", [16, 1016, 500, 2000])
    index.starts = array("Q", [0, BLOCK, 3 * BLOCK, 6 * BLOCK])
    index.starts.extend([7 * BLOCK, 8 * BLOCK + 100, 9 * BLOCK])
    index.place_chunks = array("I", [0, 1, HOLE, 0, 2, 3])
    made = ZstdCompressor(19, write_checksum=False, write_content_size=False)
    return encode_chunk_index(index, made.compress)


def make_boot_config() -> bytes:
    """Return a boot config with every field."""
    return encode_boot_config(
        BootConfig(
            release=b"0.1.0",
            source=b"docker-daemon:debian:12",
            chunk_index=digest_of(b"chunk index"),
            entrypoint=[b"/bin/echo", b"caf\xc3\xa9"],
            blob_store=b"http://store.example/",
            volumes=[b"/data"],
        )
    )


def make_manifest() -> bytes:
    """Return a store manifest."""
    packs = [(hashlib.sha256(b"pack %d" % n).digest(), 1000 + n) for n in range(2)]
    return encode_manifest(digest_of(b"chunk index"), packs)


def make_profiles() -> bytes:
    """Return profiles: one with a hot pack, and one with nothing but a name."""
    full = Profile("postgres", [b"docker-entrypoint.sh", b"caf\xc3\xa9"])
    full.origin, full.traces = 1, 3
    full.reads = [(0, 4), (600, 32), (512, 1)]
    full.chunks = array("I", [3, 0, 1])
    full.hot_pack, full.hot_pack_size = hashlib.sha256(b"hot").digest(), 12345
    return encode_profiles(digest_of(b"chunk index"), [full, Profile("x", [])])


def make_hot_pack() -> bytes:
    """Return a hot pack of `CHUNKS`, the last one first, with a flush in it."""
    chunks = [CHUNKS[2] * 40, *CHUNKS[:2]]
    return b"".join(iter_hot_pack(range(3), chunks.__getitem__))


def make_trace() -> bytes:
    """Return a trace of two reads, and the begin of a third."""
    head = encode_trace_head(digest_of(b"chunk index"), [b"/bin/sh", b"-c", b""], 1_700_000_000)
    return head + ENTRY.pack(0, 0, 4) + ENTRY.pack(250, 512, 32) + b"\1\2\3"


def make_cuts() -> bytes:
    """Return, a line each, the sizes that streams are cut into."""
    lines = []
    for name, data in (
        ("noise", noise("cuts", 4 << 20)),
        ("zeros", bytes(1 << 20)),
        ("text", b"".join(b"%d bottles of beer on the wall\n" % n for n in range(40_000))),
        ("short", noise("short", 10_000)),
    ):
        file = make_file(data)
        sizes = [piece.size for piece in cut(Stream(0, -(-len(data) // BLOCK) * BLOCK, (file,)))]
        lines.append(f"{name} {' '.join(map(str, sizes))}\n")
    return "".join(lines).encode()


def make_tree() -> Node:
    """Return a small tree with one of everything."""
    linked = make_file(noise("linked", 50_000))
    sparse = Node(
        stat.S_IFREG | 0o600,
        content=Content(1 << 20, (Segment(500_000, 1000, MemoryBlob(noise("s", 1000)), 0),)),
        uid=1000,
        mtime_ns=-1,
    )
    tool = make_file(noise("tool", 300_000), mode=0o4755)
    tool.xattrs = {b"security.capability": bytes(20)}
    return make_directory(
        bin=make_directory(tool=tool, link=make_link(b"tool"), linked=linked),
        dev=make_directory(
            null=Node(stat.S_IFCHR | 0o666, device=(1, 3)), pipe=Node(stat.S_IFIFO | 0o600)
        ),
        data=make_directory(a=make_file(b"small a"), b=make_file(b"small b"), linked=linked),
        empty=make_file(b""),
        sparse=sparse,
    )


def make_conversion() -> bytes:
    """Return, a line each, the digests of what `make_tree` becomes in an empty store."""
    with tempfile.TemporaryDirectory() as directory:
        image = StoredImage(make_tree(), Path(directory), level=9)
        lines = [
            f"bootstrap {digest_of(image.plain_bootstrap).hex()}",
            f"chunk-index {digest_of(image.encoded_index).hex()}",
            *(f"pack {digest.hex()}" for digest in image.index.pack_digests),
        ]
    return "".join(f"{line}\n" for line in lines).encode()


FILES = {
    "pack-1.hex": make_pack,
    "pack-2.hex": make_filtered_pack,
    "chunk-index-1.hex": make_chunk_index,
    "chunk-index-2.hex": make_filtered_chunk_index,
    "boot-config-1.hex": make_boot_config,
    "manifest-1.hex": make_manifest,
    "profiles-1.hex": make_profiles,
    "hot-pack-1.hex": make_hot_pack,
    "trace-1.hex": make_trace,
    "cuts-1.txt": make_cuts,
    "conversion-1.txt": make_conversion,
}


def encode(name: str, data: bytes) -> str:
    """Return a golden file's text: hex, 32 bytes a line, unless it is text already."""
    if not name.endswith(".hex"):
        return data.decode()
    return "".join(f"{data[at : at + 32].hex()}\n" for at in range(0, len(data), 32))


def read(name: str) -> bytes:
    """Return the bytes that a golden file holds."""
    text = (GOLDEN / name).read_text()
    return bytes.fromhex(text) if name.endswith(".hex") else text.encode()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, make in FILES.items():
        (GOLDEN / name).write_text(encode(name, make()))
        sys.stdout.write(f"{name}\n")
