"""Targets: what the converter reads of images, archives and packages, and of the command line."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from functools import cache
from itertools import islice
from typing import cast

from converter.bootimage import ImageFiles, build_config, build_own_layer, check_source
from converter.decompress import iter_plain
from converter.erofswriter import write_bootstrap
from converter.images.archive import image_of
from converter.images.documents import encode_json, parse_config, parse_json
from converter.images.members import Members
from converter.images.ocilayout import _find, _image_of
from converter.images.resolving import list_resolved
from converter.images.view import ImageView, JsonObject, Layer
from converter.layers import _merge_layer
from converter.origins import encode_origins, parse_origins
from converter.reference import parse_reference
from converter.runtime.debfile import parse_deb
from converter.runtime.elffile import strip_unmapped
from converter.runtime.lock import encode_lock, parse_lock
from converter.sourceconfig import check_config
from converter.spool import FileBlob
from converter.storing import add_bootstrap
from converter.structure import check_structure
from converter.tarreader import Budget, iter_entries
from converter.tree import Node, empty_root
from store.errors import (
    BootfsError,
    ConvertError,
    FormatError,
    IntegrityError,
    NotFound,
    UnsupportedEntry,
    UsageError,
)
from store.format.bootconfig import parse_boot_config
from store.format.chunkindex import ChunkIndex
from store.format.erofs import Image
from tests.fuzz.dressing import (
    dress_stream,
    dress_tar,
    edit_tar,
    in_deb,
    in_one_part,
    in_parts,
    split_parts,
)
from tests.fuzz.registry import target
from tests.support.dump import compare, dump_image, dump_tree
from tests.support.trees import DataRegion, iter_tree, make_directory, make_file, make_link

BUDGET = 4 << 20
"""Of a layer's entries: what a small input can name."""
WHOLE_LIMIT = 1 << 20
"""Files that together are longer are not read: a few bytes of a tar make a sparse one of any."""


def says_what_to_do(error: BootfsError) -> bool:
    """Whether a message goes on after what is wrong: its last part is the next step."""
    text = str(error)
    return ";" in text or any(f", {verb} " in text for verb in ("copy", "fetch", "build", "pull"))


@cache
def _file() -> int:
    return os.memfd_create("fuzz")


def blob_of(data: bytes, offset: int = 0) -> FileBlob:
    """Return ``data`` in a file, at ``offset``; what was there before goes."""
    fd = _file()
    os.ftruncate(fd, offset)
    os.pwrite(fd, data, offset)
    return FileBlob(fd, "tar", offset, len(data))


@target("tar", dress=dress_tar, edit=edit_tar, longest=8192, steps=100_000)
def check_tar(data: bytes) -> bool:
    blob = blob_of(data)
    at = -1
    try:
        for entry in iter_entries(blob, Budget(BUDGET)):
            assert at < entry.at <= len(data) - 512
            at = entry.at
            assert entry.kind in b"0123456"
            assert 0 <= entry.mode <= 0o7777
            assert 0 <= entry.uid < 1 << 32
            assert 0 <= entry.gid < 1 << 32
            assert -(1 << 63) <= entry.mtime_ns // 10**9 < 1 << 63
            assert 0 <= entry.device[0] < 1 << 12
            assert 0 <= entry.device[1] < 1 << 20
            assert b"\0" not in entry.name
            assert b"\0" not in entry.link
            end = 0
            for segment in entry.content.segments:
                assert end <= segment.offset
                assert segment.size > 0
                assert 0 <= segment.blob_offset <= segment.blob_offset + segment.size <= len(data)
                end = segment.offset + segment.size
            assert end <= entry.content.size < 1 << 63
            size = min(entry.content.size, 5000)
            assert len(entry.content.pread(0, size)) == size
            assert len(entry.content.pread(entry.content.size - size, size)) == size
    except (FormatError, ConvertError, IntegrityError) as error:
        assert says_what_to_do(error)
        return False
    return True


@target(
    "layers",
    dress=in_parts(dress_tar),
    edit=in_one_part(edit_tar),
    longest=12288,
    memory=24 << 20,
    steps=500_000,
)
def check_layers(data: bytes) -> bool:
    """Merge layers; what comes of it is a tree that can be written, and is read back as it is."""
    root = empty_root()
    offset = 0
    budget = Budget(BUDGET)
    try:
        for number, part in enumerate(split_parts(data)):
            _merge_layer(root, blob_of(part, offset), budget, number)
            offset += len(part)
    except (FormatError, ConvertError, IntegrityError) as error:
        assert says_what_to_do(error)
        return False
    _check_tree(root)
    region = DataRegion(root)
    try:
        bootstrap = write_bootstrap(root, region.extents, region.size)
    except UnsupportedEntry:
        # Larger than EROFS can address, or the owner that means "no change".
        return False
    image = Image(bootstrap.plain)
    index = ChunkIndex()
    index.data_size = region.size
    add_bootstrap(index, bootstrap.plain, bootstrap.data_start)
    check_structure(image, index)
    if region.size > WHOLE_LIMIT:
        return True
    read = region.pread
    found = dump_image(image, lambda at, size: read(at - bootstrap.data_start, size))
    assert compare(dump_tree(root), found) == []
    return True


def _check_tree(root: Node) -> None:
    """Assert that a tree is one, and that no name of it leads anywhere else."""
    entered = set()
    for path, node in iter_tree(root):
        if node.is_directory:
            assert node not in entered
            entered.add(node)
        for name, child in node.children.items():
            assert 0 < len(name) <= 255
            assert name not in (b".", b"..")
            assert b"/" not in name
            assert b"\0" not in name
            # No whiteout is left: it would hide a file, or be one.
            assert not (stat.S_ISCHR(child.mode) and child.device == (0, 0)), path


@target("stream", dress=dress_stream, longest=2048, memory=400 << 20, steps=100_000)
def check_stream(data: bytes) -> bool:
    """Decompress a stream at once and in small pieces: the same bytes, or refused both times."""
    outcomes = [_decompressed(data, size) for size in (len(data) or 1, 1, 7)]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    return outcomes[0] is not None


def _decompressed(data: bytes, size: int) -> tuple[int, bytes] | None:
    digest = hashlib.sha256()
    total = 0
    pieces = iter([data[at : at + size] for at in range(0, len(data), size)])
    try:
        for piece in iter_plain(pieces, "stream"):
            assert 0 < len(piece) <= 64 << 20
            digest.update(piece)
            total += len(piece)
    except FormatError as error:
        assert says_what_to_do(error)
        return None
    return total, digest.digest()


_JSON_WORDS = (
    b"{}", b"[]", b"null", b"true", b"-1", b"0", b"1e400", b"NaN", b"Infinity", b'"\\ud800"',
    b"9" * 30, b"[" * 120, b'{"a":' * 60, b'"', b'"\xff"', b"1.5", b"\xef\xbb\xbf",
)  # fmt: skip
_CONFIG_WORDS = (
    b'"config"', b'"rootfs"', b'"diff_ids"', b'"history"', b'"created"', b'"os"', b'"linux"',
    b'"architecture"', b'"amd64"', b'"variant"', b'"Entrypoint"', b'"Cmd"', b'"Env"', b'"User"',
    b'"WorkingDir"', b'"Volumes"', b'"ExposedPorts"', b'"Labels"', b'"io.bootfs.release"',
    b'"StopSignal"', b'"Shell"', b'"OnBuild"', b'"Healthcheck"', b'"/a/../.."', b'"/l/x"', b'".."',
    b'"2020-01-01T00:00:00Z"', b'"container_config"', b'"\\u0000"', b'"/"', b'"l"', b'"/up/up/a"',
)  # fmt: skip


@target("json", words=_JSON_WORDS, longest=1024, steps=100_000)
def check_json(data: bytes) -> bool:
    """Parse any document; what is accepted can be written and is then the same."""
    for parse in (parse_json, parse_config):
        try:
            value = parse(data, "document")
        except FormatError as error:
            assert says_what_to_do(error)
            continue
        encoded = encode_json(cast("JsonObject", value))
        assert parse_json(encoded, "document") == value
        assert encode_json(cast("JsonObject", parse_json(encoded, "document"))) == encoded
        if parse is parse_config:
            return True
    return False


ORIGIN_FILES = 9
_ORIGINS_WORDS = (
    b'"runs"',
    b'"version"',
    b"[0,9]",
    b"-1",
    b"1.0",
    b"1e9",
    b"[]",
    b"true",
    b"9" * 30,
)


@target("origins", words=_ORIGINS_WORDS, longest=512, steps=100_000)
def check_origins(data: bytes) -> bool:
    """Parse the origins of some files; written again, they say the same."""
    try:
        layers = parse_origins(data, ORIGIN_FILES)
    except FormatError as error:
        assert says_what_to_do(error)
        return False
    assert len(layers) == ORIGIN_FILES and all(layer >= 0 for layer in layers)
    files = [Node(stat.S_IFREG, layer=layer) for layer in layers]
    assert parse_origins(encode_origins(files), ORIGIN_FILES) == layers
    return True


@cache
def _plain_tree() -> Node:
    tree = make_directory(
        etc=make_directory(passwd=make_file(b"root:x:0:0::/:/bin/sh\n")),
        usr=make_directory(lib=make_directory(), up=make_link(b"../../..")),
        l=make_link(b"usr/lib"),
        out=make_link(b"/../../usr"),
        loop=make_link(b"loop"),
        f=make_file(b"f"),
    )
    tree.children[b"\xff"] = make_directory()
    return tree


@target("image-config", words=_JSON_WORDS + _CONFIG_WORDS, longest=2048, memory=24 << 20,
        steps=300_000)  # fmt: skip
def check_image_config(data: bytes) -> bool:
    """Make a boot image's own layer and config of a source's config."""
    try:
        config = parse_config(data, "config")
        settings = check_config(config)
        source = ImageView("oci:image:tag", config, "sha256:" + "0" * 64, ())
        check_source(source)
        tree = _plain_tree()
        own = build_own_layer(source, tree, ImageFiles(b"b", b"i", bytes(32), b"o"), "")
        made = build_config(source, [own], bytes(32), 5)
    except (FormatError, ConvertError, UsageError) as error:
        assert says_what_to_do(error) or isinstance(error, UsageError)
        return False
    encoded = encode_json(made)
    assert parse_json(encoded, "config") == made
    assert made["config"]["Entrypoint"] == ["/.bootfs/init"]
    _check_own_layer(own, settings)
    return True


def _check_own_layer(own: Layer, settings: dict[str, object]) -> None:
    assert isinstance(own.plain, bytes)
    with tarfile.open(fileobj=io.BytesIO(own.plain)) as tar:
        names = []
        for member in tar:
            parts = member.name.split("/")
            assert not any(part in ("", ".", "..") for part in parts), member.name
            names.append(member.name)
            if member.name == ".bootfs/image/config":
                body = tar.extractfile(member)
                assert body is not None
                found = parse_boot_config(body.read())
    assert len(names) == len(set(names))
    volumes = settings.get("Volumes", {})
    assert isinstance(volumes, dict)
    assert found.volumes == [v.encode("utf-8", "surrogateescape") for v in sorted(volumes)]
    # An engine unpacks it, so that must be possible: through our own reader too.
    root = empty_root()
    _merge_layer(root, blob_of(own.plain), Budget())
    _check_tree(root)
    for link in ("usr", "l", "out"):
        assert link in names or b".bootfs" in root.children


class Sections:
    """Documents of an image, found by their digests as a layout's are.

    The first is the index or list.  ``@N`` in one stands for the digest of section N, ``#N`` for
    its size: from the last to the first, so that each names later ones.
    """

    name = "sections"

    def __init__(self, data: bytes, first: str) -> None:
        parts = data.split(b"\n%%\n")[:8]
        for number in range(len(parts) - 1, -1, -1):
            for other in range(number + 1, len(parts)):
                digest = hashlib.sha256(parts[other]).hexdigest().encode()
                parts[number] = parts[number].replace(b"@%d" % other, b"sha256:" + digest)
                parts[number] = parts[number].replace(b"$%d" % other, digest)
                parts[number] = parts[number].replace(b"#%d" % other, b"%d" % len(parts[other]))
        self._files = {"oci-layout": b"{}", first: parts[0]}
        for part in parts[1:]:
            digest_hex = hashlib.sha256(part).hexdigest()
            self._files[f"blobs/sha256/{digest_hex}"] = part
            self._files[f"{digest_hex}.json"] = part
            self._files[f"{digest_hex}/layer.tar"] = part

    def find(self, path: str) -> FileBlob | None:
        found = self._files.get(path)
        return None if found is None else blob_of(found)


_IMAGE_WORDS = (
    *_JSON_WORDS, b"@1", b"@2", b"@3", b"#1", b"#2", b"#3", b"$1", b"$2", b"\n%%\n", b'"manifests"',
    b'"mediaType"', b'"digest"', b'"size"', b'"annotations"', b'"platform"', b'"config"',
    b'"layers"', b'"org.opencontainers.image.ref.name"', b'"rootfs"', b'"diff_ids"',
    b'"application/vnd.oci.image.index.v1+json"', b'"application/vnd.oci.image.manifest.v1+json"',
    b'"os"', b'"linux"', b'"amd64"', b'"tag"', b'"Config"', b'"RepoTags"', b'"Layers"',
)  # fmt: skip


@target("oci-layout", words=_IMAGE_WORDS, longest=2048, steps=100_000)
def check_oci_layout(data: bytes) -> bool:
    accepted = False
    for reference in ("oci:place", "oci:place:tag"):
        try:
            view = _image_of(Sections(data, "index.json"), parse_reference(reference))
        except (FormatError, IntegrityError, NotFound, UsageError) as error:
            assert says_what_to_do(error) or isinstance(error, (NotFound, UsageError))
            continue
        _check_view(view)
        _check_listed(data, reference)
        accepted = True
    return accepted


def _check_listed(data: bytes, reference: str) -> None:
    """Each image that an index lists can be opened by its way, or is refused."""
    named = parse_reference(reference)
    try:
        listed = list_resolved(*_find(Sections(data, "index.json"), named)) or []
    except (FormatError, IntegrityError, NotFound, UsageError) as error:
        assert says_what_to_do(error) or isinstance(error, (NotFound, UsageError))
        return
    for one in listed[:8]:
        try:
            view = _image_of(Sections(data, "index.json"), named, one)
        except (FormatError, IntegrityError):
            continue
        assert view.manifest_digest == one.digest


@target("docker-archive", words=_IMAGE_WORDS, longest=2048, steps=100_000)
def check_docker_archive(data: bytes) -> bool:
    accepted = False
    for wanted in ("", "a:b"):
        try:
            view = image_of(Sections(data, "manifest.json"), "docker-archive:x", wanted)
        except (FormatError, IntegrityError, NotFound, UsageError) as error:
            assert says_what_to_do(error) or isinstance(error, (NotFound, UsageError))
            continue
        _check_view(view)
        accepted = True
    return accepted


def _check_view(view: ImageView) -> None:
    assert isinstance(view.config, dict)
    encode_json(view.config)
    digests = [view.manifest_digest, *(layer.diff_id for layer in view.layers)]
    digests += [layer.digest for layer in view.layers if layer.digest]
    for digest in digests:
        assert len(digest) == 71
        assert digest.startswith("sha256:")
        int(digest[7:], 16)
    assert [layer.diff_id for layer in view.layers] == (view.config["rootfs"].get("diff_ids") or [])


@target("members", dress=dress_tar, edit=edit_tar, longest=8192, steps=200_000)
def check_members(data: bytes) -> bool:
    blob = blob_of(data)
    try:
        members = Members("archive", blob)
        entries = list(islice(iter_entries(blob, Budget(BUDGET)), 50))
    except (FormatError, ConvertError, IntegrityError):
        return False
    names = {b"manifest.json", b"../x", b"/etc/passwd", *(entry.name for entry in entries)}
    for name in sorted(names):
        found = members.find(name.decode("utf-8", "surrogateescape"))
        if found is not None:
            assert 0 <= found.offset <= found.offset + found.size <= len(data)
            found.pread(0, found.size)
    return True


_REFERENCE_WORDS = (
    b"docker-daemon:", b"docker-archive:", b"oci:", b"oci-archive:", b"docker://", b"dir:", b":",
    b"@sha256:" + b"0" * 64, b"/", b"localhost:5000/", b"[::1]:5000/", b"latest", b"@", b"..",
)  # fmt: skip


@target("reference", words=_REFERENCE_WORDS, longest=400)
def check_reference(data: bytes) -> bool:
    # As an argument comes: bytes that are no text are surrogates.
    text = data.decode("utf-8", "surrogateescape")
    try:
        reference = parse_reference(text)
    except UsageError:
        return False
    assert parse_reference(str(reference)) == reference
    assert reference.name
    if reference.transport == "docker-daemon":
        assert not any(c <= " " or c > "~" for c in reference.engine_name)
        assert ".." not in reference.engine_name.split("/")
    return True


@target("deb", dress=in_deb(dress_tar), edit=in_deb(edit_tar), longest=8192, memory=32 << 20,
        steps=200_000)  # fmt: skip
def check_deb(data: bytes) -> bool:
    try:
        files = parse_deb("package", data)
    except FormatError:
        return False
    for path in files:
        assert not path.startswith("/")
        assert not any(part in ("", ".", "..") for part in path.split("/")), path
    return True


@target("elf", longest=1024)
def check_elf(data: bytes) -> bool:
    try:
        stripped = strip_unmapped("program", data)
    except FormatError:
        return False
    assert len(stripped) <= len(data)
    assert strip_unmapped("program", stripped) == stripped
    return True


_LOCK_WORDS = (b"deb ", b"wheel ", b"snapshot ", b"0" * 64, b"\n", b"\r", b"20250101T000000Z")


@target("lock", words=_LOCK_WORDS, longest=1024)
def check_lock(data: bytes) -> bool:
    try:
        lock = parse_lock(data.decode("utf-8", "replace"))
    except FormatError:
        return False
    assert parse_lock(encode_lock(lock)) == lock
    assert all(item.size >= 0 and len(item.sha256) == 64 for item in lock.inputs)
    return True
