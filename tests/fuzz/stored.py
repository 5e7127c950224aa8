"""Targets: the objects of a store, and the bootstrap."""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from itertools import pairwise

from zstandard import ZstdCompressor

from boot.lease.skeleton import iter_directories
from converter.erofswriter import write_bootstrap
from converter.structure import check_structure
from converter.tree import Content, Node, Segment
from store.errors import FormatError, IntegrityError, UnsupportedEntry
from store.format import packfile, profile
from store.format.bootconfig import encode_boot_config, parse_boot_config
from store.format.chunkindex import (
    BLOCK,
    FRAME,
    FRAME_STORED_LIMIT,
    HOLE,
    ChunkIndex,
    encode_chunk_index,
    parse_chunk_index,
)
from store.format.digest import DIGEST_SIZE, digest_of
from store.format.erofs import Image, Inode
from store.format.names import bootstrap_name, chunk_index_name, manifest_name, pack_name
from store.format.packfile import CHUNK_LIMIT
from store.format.profile import choose_profile, parse_profiles
from store.format.trace import (
    COMMAND_LIMIT,
    ENTRY,
    encode_command,
    encode_trace_head,
    parse_trace,
)
from store.format.zstdframe import decompress
from store.write.artifact import artifact_tag, encode_artifact, parse_artifact
from store.write.manifest import encode_manifest, parse_manifest
from store.write.profilebuild import merge_profiles, merge_reads
from store.write.profiles import encode_profiles
from store.write.registry.manifest import OCI_MANIFEST, Descriptor, Manifest
from tests.fuzz.dressing import (
    dress_boot_config,
    dress_bootstrap,
    dress_chunk_index,
    dress_pack,
    dress_profiles,
    dress_zstd,
    edit_bootstrap,
)
from tests.fuzz.registry import target
from tests.support.stores import make_index


@target("pack", dress=dress_pack)
def check_pack(data: bytes) -> bool:
    footer, header = packfile.FOOTER.size, packfile.HEADER.size
    try:
        packfile.parse_header(data[:header])
        at, size, digest = packfile.parse_footer(data[-footer:], len(data))
        assert header <= at <= at + size == len(data) - footer
        entries = packfile.parse_table(data[at : at + size], digest, at)
    except FormatError:
        return False
    end = header
    for entry in entries:
        assert entry.offset == end
        assert 0 < entry.stored_size <= entry.plain_size <= CHUNK_LIMIT
        assert len(entry.digest) == DIGEST_SIZE
        end += entry.stored_size
    assert end == at
    versions = data[8], packfile.version_of(data[-footer:])
    head, tail = packfile.encode_header(versions[0]), packfile.encode_tail(entries, versions[1])
    assert head + data[header:at] + tail == data
    return True


@target("chunk-index", dress=dress_chunk_index, memory=64 << 20, steps=100_000)
def check_chunk_index(data: bytes) -> bool:
    try:
        index = parse_chunk_index(data)
    except FormatError:
        return False
    check_index(index)
    encoded = encode_chunk_index(index)
    again = parse_chunk_index(encoded)
    assert encode_chunk_index(again) == encoded
    for name in ChunkIndex.__slots__:
        if not name.startswith("_"):
            assert getattr(again, name) == getattr(index, name), name
    assert again.packs == index.packs
    assert again.offsets == index.offsets
    return True


def check_index(index: ChunkIndex) -> None:
    """Assert what the docstring of `ChunkIndex` says."""
    chunks = index.chunk_count
    starts = index.starts
    assert len(index.digests) == chunks * DIGEST_SIZE
    assert len(index.stored_sizes) == len(index.packs) == len(index.offsets) == chunks
    for chunk in range(chunks):
        stored = index.stored_sizes[chunk]
        assert 0 < stored <= index.plain_sizes[chunk] <= CHUNK_LIMIT
        pack = index.packs[chunk]
        assert packfile.HEADER.size <= index.offsets[chunk]
        assert index.offsets[chunk] + stored <= index.pack_sizes[pack]
    assert len(index.pack_digests) == len(index.pack_sizes)
    assert starts[0] == 0
    assert starts[-1] == index.data_size
    assert len(starts) == len(index.place_chunks) + 1
    for place, chunk in enumerate(index.place_chunks):
        size = starts[place + 1] - starts[place]
        assert size > 0
        assert chunk == HOLE or size == index.plain_sizes[chunk]
    frames = index.frame_starts
    assert len(frames) == len(index.frame_digests) + 1 == -(-index.bootstrap_size // FRAME) + 1
    for before, after in pairwise(frames):
        assert 0 < after - before <= FRAME_STORED_LIMIT
    assert index.bootstrap_size <= index.data_start < index.bootstrap_size + (2 << 20)
    assert index.data_size % BLOCK == 0


@target("boot-config", dress=dress_boot_config)
def check_boot_config(data: bytes) -> bool:
    try:
        config = parse_boot_config(data)
    except FormatError:
        return False
    assert len(config.chunk_index) == DIGEST_SIZE
    values = [config.release, config.source, config.blob_store, *config.entrypoint, *config.volumes]
    assert sum(map(len, values)) + DIGEST_SIZE <= len(data)
    again = parse_boot_config(encode_boot_config(config))
    for name in type(config).__slots__:
        assert getattr(again, name) == getattr(config, name), name
    return True


@target("zstd-frame", dress=dress_zstd, longest=2048, memory=20 << 20)
def check_zstd_frame(data: bytes) -> bool:
    size = int.from_bytes(data[:4], "little") % (CHUNK_LIMIT + 1)
    try:
        plain = decompress(data[4:], size, "frame")
    except IntegrityError:
        return False
    assert len(plain) == size
    assert decompress(ZstdCompressor().compress(plain), size, "frame") == plain
    return True


IMAGE = digest_of(b"chunk index")
"""Of the profiles that are fuzzed: that of the golden files."""


@target("profiles", dress=dress_profiles, memory=80 << 20, steps=1_000_000)
def check_profiles(data: bytes) -> bool:
    try:
        found = parse_profiles(data, IMAGE, "profiles")
    except (FormatError, IntegrityError):
        return False
    for one in found:
        assert 0 < len(one.name.encode()) <= profile.NAME_LIMIT
        assert len(encode_command(one.command)) <= COMMAND_LIMIT
        assert len(one.reads) <= profile.READ_LIMIT and len(one.chunks) <= profile.CHUNK_LIMIT
        assert 0 <= one.hot_pack_size <= profile.HOT_PACK_LIMIT
        assert len(one.hot_pack) == DIGEST_SIZE and one.origin < len(profile.ORIGINS)
    again = parse_profiles(encode_profiles(IMAGE, found), IMAGE, "profiles")
    for one, other in zip(found, again, strict=True):
        for name in profile.Profile.__slots__:
            assert getattr(one, name) == getattr(other, name), name
    for name, command in (("", [b"a", b"b"]), ("a", []), ("", [])):
        chosen = choose_profile(found, name, command)
        assert chosen is None or chosen in found
    _check_merged(found)
    return True


def _check_merged(found: list[profile.Profile]) -> None:
    """Assert that what profiles say is clipped to the image, whatever that is."""
    index = make_index()
    end = (index.data_start + index.data_size) // BLOCK
    for one in found:
        both = merge_profiles(index, one, found[0])
        assert all(0 <= first < first + pages <= end for first, pages in both.reads)
        assert len(both.reads) <= profile.READ_LIMIT
        assert len(set(both.chunks)) == len(both.chunks) <= index.chunk_count
        assert all(chunk < index.chunk_count for chunk in both.chunks)


@target("trace")
def check_trace(data: bytes) -> bool:
    try:
        found = parse_trace(data, "trace")
    except FormatError:
        return False
    assert len(found.image) == DIGEST_SIZE and len(found.reads) * ENTRY.size <= len(data)
    head = encode_trace_head(found.image, found.command, found.begun_s)
    again = head + b"".join(ENTRY.pack(*read) for read in found.reads)
    # But for a field that means nothing yet.
    assert data[:12] + again[12:16] + data[16 : len(again)] == again
    assert len(data) - len(again) < ENTRY.size
    reads = [(first, pages) for _, first, pages in found.reads]
    merged = merge_reads([reads], 1 << 20)
    covered = sorted(merged)
    assert all(a + n <= b for (a, n), (b, _) in pairwise(covered))
    asked = {page for first, pages in reads for page in range(first, min(first + pages, 64))}
    assert {p for a, n in merged for p in range(a, min(a + n, 64))} == asked
    return True


@target(
    "artifact",
    words=(
        b'"artifactType"', b'"application/vnd.bootfs.store.v1"', b'"layers"', b'"annotations"',
        b'"org.opencontainers.image.title"', b'"manifests/', b'"indexes/', b'"bootstraps/',
        b'"packs/00/', b'"subject"', b'"digest"', b'"sha256:', b'"size"', b"[]", b"{}", b"null",
        b"-1", b"1.0", b"0" * 64,
    ),
)  # fmt: skip
def check_artifact(data: bytes) -> bool:
    try:
        artifact = parse_artifact(Manifest(data, OCI_MANIFEST), "artifact")
    except FormatError:
        return False
    if artifact is None:
        return True
    assert (artifact.digest, artifact.size) == (Manifest(data, OCI_MANIFEST).digest, len(data))
    image = artifact.image
    own = {manifest_name(image), chunk_index_name(image), bootstrap_name(image)}
    packs = []
    for name, (digest, size) in artifact.objects.items():
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
        assert size >= 0
        if name not in own:
            assert name == pack_name(bytes.fromhex(digest.removeprefix("sha256:")))
            packs.append((bytes.fromhex(digest.removeprefix("sha256:")), size))
    others = {name: artifact.objects[name] for name in own}
    subject = Descriptor(OCI_MANIFEST, artifact.subject, 1) if artifact.subject else None
    again = parse_artifact(encode_artifact(image, packs, others, subject), "artifact")
    assert again is not None
    assert again.objects == artifact.objects
    assert (again.image, again.subject) == (image, artifact.subject)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", artifact_tag(image, again.subject))
    return True


_MANIFEST_WORDS = (
    b'"kind"', b'"bootfs store manifest"', b'"version"', b"1", b'"chunkIndex"', b'"blake3:',
    b'"packs"', b'"digest"', b'"sha256:', b'"size"', b"[]", b"{}", b"null", b"true", b"1e999",
    b"NaN", b"9223372036854775808", b"-1", b"1.0", b"0" * 64, b"[" * 300,
)  # fmt: skip


@target("store-manifest", words=_MANIFEST_WORDS)
def check_store_manifest(data: bytes) -> bool:
    try:
        index, packs = parse_manifest(data)
    except FormatError:
        return False
    assert len(index) == DIGEST_SIZE
    assert all(len(digest) == 32 and 0 < size < 1 << 63 for digest, size in packs)
    assert parse_manifest(encode_manifest(index, packs)) == (index, packs)
    return True


class _Zeros:
    """A blob of zeros, however long."""

    def pread(self, offset: int, size: int) -> bytes:
        return bytes(size)


@target("bootstrap", dress=dress_bootstrap, edit=edit_bootstrap, longest=16384, steps=200_000)
def check_bootstrap(data: bytes) -> bool:
    """Use all that `Image` offers; what also passes as a structure is written again, and equal."""
    try:
        image = Image(data)
    except FormatError:
        return False
    assert _visit(image, len(data)) <= len(data) // 32
    with suppress(FormatError):
        # As mode lease does, which makes each of them.
        directories = [found.nid for found in iter_directories(image, image.root_nid, set())]
        assert len(directories) == len(set(directories)) <= len(data) // 32
    index = ChunkIndex()
    index.bootstrap_size = len(data)
    index.data_start = image.data_start
    index.data_size = image.size - image.data_start
    try:
        check_structure(image, index)
    except FormatError:
        return False
    root, extents = _tree_of(image)
    try:
        bootstrap = write_bootstrap(root, extents, index.data_size)
    except UnsupportedEntry:
        # An owner that means "no change" to chown(2), say.
        return False
    again = Image(bootstrap.plain)
    index.data_start = bootstrap.data_start
    index.bootstrap_size = len(bootstrap.plain)
    check_structure(again, index)
    _compare(image, again)
    return True


def _visit(image: Image, size: int) -> int:
    """Use everything, without regard to the tree; return the number of directories."""
    entered: set[int] = set()
    stack = [image.root_nid]
    # Directories may lie on one another, and the reader reads each.
    left = 4 * size
    while stack and left > 0:
        nid = stack.pop()
        if nid in entered:
            continue
        entered.add(nid)
        try:
            inode = image.inode(nid)
            _visit_inode(image, inode, size)
            if inode.kind == stat.S_IFDIR:
                left -= inode.size
                stack += [child for _, child, _ in image.iter_dir(inode)]
        except FormatError:
            continue
    return len(entered)


def _visit_inode(image: Image, inode: Inode, size: int) -> None:
    assert 0 <= inode.mtime_ns < 1_000_000_000
    assert inode.nid * 32 + 64 + inode.xattrs_size <= size
    if inode.kind == stat.S_IFREG and inode.size:
        assert image.data_start <= inode.data_offset
        assert inode.data_offset + inode.size <= image.size
    if inode.kind == stat.S_IFLNK:
        target = image.readlink(inode)
        assert 0 < len(target) == inode.size <= 4095
        assert b"\0" not in target
    xattrs = image.xattrs(inode)
    # A prefix takes one byte in the bootstrap; a name stands for at least four.
    assert sum(map(len, xattrs.values())) + 4 * len(xattrs) <= inode.xattrs_size
    if inode.kind == stat.S_IFDIR:
        _visit_directory(image, inode, size)


def _visit_directory(image: Image, inode: Inode, size: int) -> None:
    assert inode.size <= size
    before = b""
    cookies = [0]
    listed = []
    for name, nid, file_type, cookie in image.iter_dir_from(inode, 0):
        assert before < name
        assert len(name) <= 255
        assert b"/" not in name
        assert b"\0" not in name
        assert 1 <= file_type <= 7
        before = name
        listed.append((name, nid))
        cookies.append(cookie)
    # All blocks are well: what is listed is found, and can be gone on with.
    for number, (name, nid) in enumerate(listed[:20]):
        assert image.lookup(inode, name) == nid
        rest = [(n, i) for n, i, _, _ in image.iter_dir_from(inode, cookies[number])]
        assert rest == listed[number:]
    assert image.lookup(inode, before + b"\1") is None


def _tree_of(image: Image) -> tuple[Node, dict[Node, int]]:
    """Return the tree that a bootstrap says, and where its files lie in the data region."""
    nodes: dict[int, Node] = {}
    extents: dict[Node, int] = {}

    def node_of(nid: int) -> Node:
        if nid not in nodes:
            inode = image.inode(nid)
            node = nodes[nid] = Node(
                inode.mode, inode.uid, inode.gid, inode.mtime_s * 10**9 + inode.mtime_ns,
                xattrs=image.xattrs(inode), device=inode.rdev,
            )  # fmt: skip
            if node.is_symlink:
                node.target = image.readlink(inode)
            if node.is_regular and inode.size:
                node.content = Content(inode.size, (Segment(0, inode.size, _Zeros(), 0),))
                extents[node] = inode.data_offset - image.data_start
        return nodes[nid]

    pending = [image.root_nid]
    while pending:
        nid = pending.pop()
        for name, child, kind in image.iter_dir(image.inode(nid)):
            if name not in (b".", b".."):
                node_of(nid).children[name] = node_of(child)
                if kind == 2:
                    pending.append(child)
    return node_of(image.root_nid), extents


def _compare(one: Image, other: Image) -> None:
    """Assert that two bootstraps say the same."""
    pending = [(one.root_nid, other.root_nid)]
    while pending:
        left, right = pending.pop()
        a, b = one.inode(left), other.inode(right)
        for name in ("mode", "uid", "gid", "mtime_s", "mtime_ns", "nlink", "rdev"):
            assert getattr(a, name) == getattr(b, name), name
        assert one.xattrs(a) == other.xattrs(b)
        if a.kind == stat.S_IFLNK:
            assert one.readlink(a) == other.readlink(b)
        if a.kind == stat.S_IFREG and a.size:
            assert a.size == b.size
            assert a.data_offset - one.data_start == b.data_offset - other.data_start
        if a.kind != stat.S_IFDIR:
            continue
        found = [(n, i, k) for n, i, k in one.iter_dir(a)]
        made = [(n, i, k) for n, i, k in other.iter_dir(b)]
        assert [(n, k) for n, _, k in found] == [(n, k) for n, _, k in made]
        pending += [
            (i, j)
            for (n, i, k), (_, j, _) in zip(found, made, strict=True)
            if n not in (b".", b"..")
        ]
