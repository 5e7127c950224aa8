"""Images to and from a real engine, and layers merged as that engine's overlay2 does."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from converter.images.transports import open_image, write_image
from converter.images.view import ImageView, JsonObject, Layer
from converter.layers import merge_layers
from converter.reference import parse_reference
from converter.spool import Spool
from converter.tree import Node
from store.errors import (
    AccessDenied,
    ConvertError,
    DigestMismatch,
    ImageNotFound,
    Unreachable,
    UsageError,
)
from tests.support.dump import Entry, compare, dump_directory, dump_tree
from tests.support.engine import BASE_IMAGE, Engine, docker
from tests.support.layers import (
    Member,
    block_device,
    char_device,
    directory,
    docker_archive,
    fifo,
    file,
    hardlink,
    opaque,
    symlink,
    tar_of,
    whiteout,
)

pytestmark = [pytest.mark.system, pytest.mark.requires("docker", "root")]

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
BASE_TREE = [
    directory("usr/"),
    directory("usr/lib/", mode=0o2750, uid=7),
    file("usr/lib/a", b"a"),
    symlink("lib", "usr/lib"),
    directory("tmp/", mode=0o1777, uid=5),
    file("tmp/a", b"a"),
    directory("d/", xattrs={"user.d": b"1"}),
    file("d/x", b"x"),
    file("f", b"f"),
    hardlink("g", "f"),
]

CASES: dict[str, list[list[Member]]] = {
    "upper file below a lower link": [[file("lib/foo", b"f")]],
    "upper directory below a lower link": [[directory("lib/"), file("lib/foo", b"f")]],
    "parents without entries": [[file("tmp/b", b"b", mtime=123), file("new/deep/er", b"")]],
    "entry of a directory after its child": [
        [file("tmp/c"), directory("tmp/", mode=0o711, mtime=4)]
    ],
    "opaque first": [[directory("d/"), opaque("d"), file("d/y")]],
    "opaque last": [[directory("d/"), file("d/y"), opaque("d")]],
    "opaque alone": [[opaque("d")]],
    "opaque root": [[opaque(""), file("b")]],
    "opaque below a link": [[symlink("e", "d"), directory("d/"), opaque("e")]],
    "whiteout then directory": [[whiteout("d"), directory("d/"), file("d/y")]],
    "whiteout then file": [[whiteout("d"), file("d", b"q")]],
    "whiteout of a hard link": [[whiteout("f")]],
    "whiteout of nothing": [[directory("d/"), whiteout("d/nothing"), file("d/y")]],
    "whiteout and back": [[whiteout("d")], [directory("d/"), file("d/z")]],
    "device 0:0 is a whiteout": [[char_device("f", 0, 0)]],
    "hard link replaced above": [[file("f", b"2")]],
    "hard links": [
        [
            file("h1", b"1"),
            hardlink("h2", "h1", mode=0o600, uid=9, mtime=77),
            hardlink("h3", "/h1"),
            symlink("s1", "nowhere"),
            hardlink("s2", "s1"),
            directory("e/"),
            symlink("l", "e"),
            file("e/a", b"1"),
            hardlink("h4", "l/a"),
        ]
    ],
    "file to directory": [[directory("f/"), file("f/b")]],
    "directory to file and back": [[file("d", b"3")], [directory("d/"), file("d/c")]],
    "link over directory": [[symlink("d", "e")]],
    "relative link as parent": [
        [
            directory("c/"),
            symlink("k", "c"),
            file("k/x", b"1"),
            file("k/new/x"),
            directory("c/i/"),
            symlink("c/i/up", "../../c"),
            file("c/i/up/z"),
        ]
    ],
    "names by dots": [[file("./a/../x1", b"1"), file("/x2/y", b"1"), directory("x3//y/.//")]],
    "root directory": [[directory("./", mode=0o700, mtime=3), file("a")]],
    "kinds": [
        [
            char_device("c", 5, 1, mode=0o666),
            block_device("b", 8, 300, uid=3),
            fifo("p", mode=0o640),
            file(b"\xff\xfe", b"x"),
            symlink("s", b"\xfa"),
            file("suid", mode=0o6755, uid=3),
            directory("sticky", mode=0o3777),
            file("ids", uid=4_000_000_000, gid=4_294_967_294),
            file("n" * 255),
            symlink("t", "t" * 4095),
            file("ns", pax={"mtime": "1.1234567899"}),
            symlink("old", "x", pax={"mtime": "-1.5"}),
        ]
    ],
    "xattrs": [
        [
            directory("d/"),
            file("cap", b"1", xattrs={"user.x": b"\xff\x00z", "security.capability": CAPABILITY}),
            symlink("s", "a", xattrs={"user.q": b"1"}),
            file("empty", xattrs={"user.empty": b""}),
        ]
    ],
    "empty layers and repeated ones": [[], BASE_TREE, []],
}

REFUSED: dict[str, list[Member]] = {
    "directory and its whiteout": [directory("e/"), whiteout("e")],
    "child of a whiteout": [whiteout("d"), file("d/y")],
    "child of a file": [file("a", b"1"), file("a/b", b"2")],
    "child of a dangling link": [symlink("l", "usr"), file("l/x", b"1")],
    "link to itself": [file("a", b"1"), hardlink("a", "a")],
    "link to a directory": [directory("a/"), hardlink("b", "a")],
    "nameless whiteout": [file(".wh.")],
    "name of 256 bytes": [file("n" * 256)],
}


@contextmanager
def mounted(image: str, at: Path) -> Iterator[Path]:
    """Mount an image's layers, and nothing of a container's, as the engine would."""
    data = json.loads(docker("image", "inspect", image).stdout)[0]["GraphDriver"]["Data"]
    empty, where = at / "empty", at / "mounted"
    empty.mkdir()
    where.mkdir()
    layers = [data["UpperDir"], *data.get("LowerDir", "").split(":"), str(empty)]
    lower = ":".join(layer for layer in layers if layer)
    options = f"ro,lowerdir={lower}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, where], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


def check_same(ours: dict[bytes, Entry], shown: dict[bytes, Entry], since_ns: int) -> None:
    """Compare two dumps, but for what overlayfs and unpacking itself give."""
    for path, entry in ours.items():
        # overlayfs counts a lower inode's names even if they are hidden.
        seen = shown[path] = replace(shown[path], nlink=entry.nlink)
        # A container's root has the time of its own layer.
        if seen.mtime_ns >= since_ns or path == b"":
            ours[path] = replace(entry, mtime_ns=seen.mtime_ns)
    assert compare(shown, ours) == []


def read_tree(image: str, spool: Spool) -> Node:
    return merge_layers(open_image(parse_reference(image), spool).layers, spool)


def layers_of(view: ImageView) -> list[Layer]:
    """Return a source's layers as ones to write to an engine, which takes them plain."""
    return [
        Layer(b"".join(layer.stored.iter_pieces()), b"", layer.diff_id, layer.diff_id, 0)
        for layer in view.layers
    ]


@pytest.mark.parametrize("name", CASES)
def test_layers_merge_as_overlay2_shows_them(engine: Engine, tmp_path: Path, name: str) -> None:
    image = engine.image_name()
    tars = [tar_of(*BASE_TREE), *(tar_of(*members) for members in CASES[name])]
    started_ns = time.time_ns()
    archive = tmp_path / "x.tar"
    archive.write_bytes(docker_archive(*tars, tags=[image]))
    docker("load", "-i", str(archive))
    with Spool(tmp_path) as spool, mounted(image, tmp_path) as root:
        ours = dump_tree(read_tree(f"docker-archive:{archive}", spool))
        check_same(ours, dump_directory(root), started_ns)
        # What the engine hands out again is the same.
        again = dump_tree(read_tree(image, spool))
        check_same(again, dump_directory(root), started_ns)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_the_engine_refuses_too(engine: Engine, tmp_path: Path, name: str) -> None:
    archive = tmp_path / "x.tar"
    tars = [tar_of(*BASE_TREE), tar_of(*REFUSED[name])]
    archive.write_bytes(docker_archive(*tars, tags=[engine.image_name()]))
    assert docker("load", "-i", str(archive), check=False).returncode != 0
    with Spool(tmp_path) as spool, pytest.raises(ConvertError):
        read_tree(f"docker-archive:{archive}", spool)


def test_root_of_a_container_is_its_own(engine: Engine, tmp_path: Path) -> None:
    image = engine.image_name()
    archive = tmp_path / "x.tar"
    odd = directory("/", mode=0o1777, uid=7, xattrs={"user.r": b"1"})
    archive.write_bytes(docker_archive(tar_of(odd, file("a")), tags=[image]))
    docker("load", "-i", str(archive))
    upper = Path(engine.create(image, "x").inspect()["GraphDriver"]["Data"]["UpperDir"])
    with Spool(tmp_path) as spool:
        root = read_tree(f"docker-archive:{archive}", spool)
    status = upper.stat()
    assert (root.mode, root.uid, root.xattrs) == (status.st_mode, status.st_uid, {})


def test_a_real_image_is_read_as_the_engine_shows_it(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool, mounted(BASE_IMAGE, tmp_path) as root:
        check_same(dump_tree(read_tree(BASE_IMAGE, spool)), dump_directory(root), 1 << 63)


def test_view_of_the_engine_has_the_image_id_and_its_config(tmp_path: Path) -> None:
    shown = json.loads(docker("image", "inspect", BASE_IMAGE).stdout)[0]
    with Spool(tmp_path) as spool:
        for name in (BASE_IMAGE, shown["Id"], shown["Id"][7:19]):
            view = open_image(parse_reference(name), spool)
            assert view.manifest_digest == shown["Id"]
            assert view.config["rootfs"]["diff_ids"] == shown["RootFS"]["Layers"]
            assert [layer.diff_id for layer in view.layers] == shown["RootFS"]["Layers"]


def test_written_image_runs_and_exports_as_its_source(engine: Engine, tmp_path: Path) -> None:
    image = engine.image_name()
    with Spool(tmp_path) as spool:
        source = open_image(parse_reference(BASE_IMAGE), spool)
        own = Layer.from_plain(tar_of(file("own", b"mine\n", mode=0o600)))
        config: JsonObject = source.config | {"config": {"Cmd": ["cat", "/own"], "Env": ["A=b"]}}
        written = write_image(parse_reference(image), config, [*layers_of(source), own])
    shown = json.loads(docker("image", "inspect", image).stdout)[0]
    assert shown["Id"] == written
    assert engine.run(image, check=True).stdout == "mine\n"
    members = exported(engine.create(image).name, tmp_path / "1.tar")
    assert members.pop("own") == (tarfile.REGTYPE, 0o100600, 0, 0, 5, "")
    assert members == exported(engine.create(BASE_IMAGE).name, tmp_path / "2.tar")


def exported(container: str, path: Path) -> dict[str, tuple[object, ...]]:
    docker("export", "-o", str(path), container)
    with tarfile.open(path) as tar:
        return {
            info.name: (info.type, info.mode, info.uid, info.gid, info.size, info.linkname)
            for info in tar
        }


@pytest.mark.requires("skopeo")
@pytest.mark.parametrize("transport", ["docker-archive", "oci", "oci-archive"])
def test_skopeo_and_the_engine_read_what_is_written(
    engine: Engine, tmp_path: Path, transport: str
) -> None:
    image = engine.image_name()
    config: JsonObject = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"k": "v"}},
        "history": [{"created_by": "x"}, {"created_by": "y"}],
    }
    layers = [Layer.from_plain(tar_of(file(name, b"1"))) for name in ("a", "b")]
    tag = image if transport == "docker-archive" else "v1"
    where = f"{transport}:{tmp_path}/dest:{tag}"
    write_image(parse_reference(where), config, layers)
    subprocess.run(["skopeo", "copy", "-q", where, f"docker-daemon:{image}"], check=True)
    shown = json.loads(docker("image", "inspect", image).stdout)[0]
    assert shown["RootFS"]["Layers"] == [layer.diff_id for layer in layers]
    assert shown["Config"]["Labels"] == {"k": "v"}
    if transport == "docker-archive":
        docker("rmi", image)
        assert image in docker("load", "-i", str(tmp_path / "dest")).stdout


@pytest.mark.requires("skopeo")
@pytest.mark.parametrize(
    ("transport", "options"),
    [
        ("docker-archive", []),
        ("oci", []),
        ("oci", ["--dest-compress-format", "zstd"]),
        ("oci-archive", []),
    ],
)
def test_what_skopeo_writes_is_read(tmp_path: Path, transport: str, options: list[str]) -> None:
    where = f"{transport}:{tmp_path}/dest:{'x:v1' if transport == 'docker-archive' else 'v1'}"
    command = ["skopeo", "copy", "-q", *options, f"docker-daemon:{BASE_IMAGE}", where]
    subprocess.run(command, check=True)
    with Spool(tmp_path) as spool:
        assert dump_tree(read_tree(where, spool)) == dump_tree(read_tree(BASE_IMAGE, spool))


def test_image_that_is_not_there() -> None:
    with Spool() as spool, pytest.raises(ImageNotFound, match="bootfs-no-such-image:latest"):
        open_image(parse_reference("bootfs-no-such-image"), spool)


def test_wrong_layer_leaves_no_image(engine: Engine) -> None:
    image = engine.image_name()
    good = Layer.from_plain(tar_of(file("a")))
    bad = Layer(b"x" * 1024, b"", good.diff_id, good.digest, 0)
    with pytest.raises(DigestMismatch):
        write_image(parse_reference(image), {"os": "linux"}, [bad])
    assert docker("image", "inspect", image, check=False).returncode != 0


def test_digest_cannot_be_written_to() -> None:
    with pytest.raises(UsageError, match="NAME:TAG"):
        write_image(parse_reference("sha256:" + "0" * 64), {}, [])


def test_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reference = parse_reference("debian")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    with Spool(tmp_path) as spool, pytest.raises(Unreachable, match="DOCKER_HOST"):
        open_image(reference, spool)
    with pytest.raises(Unreachable, match="DOCKER_HOST"):
        write_image(reference, {}, [])


def test_socket_that_is_forbidden(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(65534)
        os.seteuid(65534)
        try:
            with pytest.raises(AccessDenied, match="group docker"):
                open_image(parse_reference("debian"), spool)
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)
