"""A directory or a tar as a source: what is in the image is what was there."""

from __future__ import annotations

import gzip
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import zstandard

from converter.cli import main
from converter.images.rootfs import open_directory
from converter.images.transports import check_destination, open_image, write_image
from converter.layers import merge_layers
from converter.reference import parse_reference
from converter.spool import Spool
from store.errors import (
    AccessDenied,
    ConvertError,
    FormatError,
    NotFound,
    UnsupportedEntry,
    UsageError,
)
from tests.support.dump import Entry, compare, dump_directory, dump_tree
from tests.support.layers import directory, docker_archive, file, tar_of
from tests.support.require import require

DATA = Random(1).randbytes(200_000)
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def spool() -> Iterator[Spool]:
    with Spool() as opened:
        yield opened


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    """Give a function that runs the command and returns its status and all it said."""

    def call(*arguments: object) -> tuple[int, str]:
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return call


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a directory with one of everything that anybody may make."""
    root = tmp_path / "root"
    (root / "d/deep").mkdir(parents=True)
    (root / "d/file").write_bytes(DATA)
    (root / "d/file").chmod(0o750)
    os.link(root / "d/file", root / "name")
    (root / "link").symlink_to("d/none")
    os.mkfifo(root / "pipe", 0o600)
    (root / "empty").touch()
    (root / b"\xff\n".decode("utf-8", "surrogateescape")).write_bytes(b"odd name")
    with (root / "sparse").open("wb") as sparse:
        sparse.seek(5 << 20)
        sparse.write(b"in the middle")
        sparse.truncate(1 << 30)
    os.utime(root / "d/deep", ns=(1, 1_600_000_000_123_456_789))
    os.utime(root / "empty", ns=(1, -1_000_000_001))
    return root


def found_in(reference: str, spool: Spool) -> dict[bytes, Entry]:
    return dump_tree(merge_layers(open_image(parse_reference(reference), spool).layers, spool))


def check_same(root: Path, spool: Spool) -> None:
    expected, found = dump_directory(os.fsencode(root)), found_in(f"dir:{root}", spool)
    assert expected[b""].mtime_ns == found[b""].mtime_ns
    del expected[b""], found[b""]
    assert compare(expected, found) == []


def test_a_directory_is_taken_as_it_is(root: Path, spool: Spool) -> None:
    check_same(root, spool)
    # The gigabyte of holes took no room.
    assert sum(layer.size for layer in open_image(
        parse_reference(f"dir:{root}"), spool).layers) < 1_000_000  # fmt: skip


@pytest.mark.requires("root")
def test_what_only_root_can_make_is_taken_too(root: Path, spool: Spool) -> None:
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(8, 17))
    os.chown(root / "d", 1234, 56789)
    os.chown(root / "link", 7, 8, follow_symlinks=False)
    (root / "d/file").chmod(0o4755)
    os.setxattr(root / "d/file", "security.capability", b"\1\0\0\2\0\4" + bytes(14))
    os.setxattr(root / "d", "trusted.mine", b"\xff\0")
    check_same(root, spool)


def test_one_directory_gives_one_image(root: Path, spool: Spool, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", root, tmp_path / "copy"], check=True)
    first, second = (
        open_image(parse_reference(f"dir:{path}"), spool) for path in (root, tmp_path / "copy")
    )
    assert first.manifest_digest == second.manifest_digest
    (tmp_path / "copy/empty").chmod(0o600)
    other = open_image(parse_reference(f"dir:{tmp_path}/copy"), spool)
    assert other.manifest_digest != first.manifest_digest


def test_sockets_are_left_out(root: Path, spool: Spool) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "s"))
    assert b"/s" not in found_in(f"dir:{root}", spool)


def test_a_host_s_own_labels_are_left_out(root: Path, spool: Spool) -> None:
    require("root")
    os.setxattr(root / "empty", "security.selinux", b"label")
    assert found_in(f"dir:{root}", spool)[b"/empty"].xattrs == ()


def test_what_would_become_something_else_is_refused(root: Path, spool: Spool) -> None:
    (root / "d/.wh.file").touch()
    with pytest.raises(UnsupportedEntry, match=r"/d/\.wh\.file"):
        found_in(f"dir:{root}", spool)


@pytest.mark.requires("root")
def test_a_mount_below_is_refused_and_a_bind_mount_of_all_is_the_way(
    root: Path, spool: Spool, tmp_path: Path
) -> None:
    (tmp_path / "view").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", root / "d/deep"], check=True)
    try:
        with pytest.raises(UsageError, match="d/deep is a mount"):
            found_in(f"dir:{root}", spool)
        subprocess.run(["mount", "--bind", root, tmp_path / "view"], check=True)
        try:
            assert b"/d/file" in found_in(f"dir:{tmp_path}/view", spool)
        finally:
            subprocess.run(["umount", tmp_path / "view"], check=True)
    finally:
        subprocess.run(["umount", root / "d/deep"], check=True)


def test_a_file_that_changes_meanwhile_is_refused(
    root: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import converter.images.rootfs as module

    original = module.read_directory

    def read_and_change(path: Path, budget: Any) -> Any:
        tree = original(path, budget)
        (root / "d/file").write_bytes(b"shorter")
        return tree

    monkeypatch.setattr(module, "read_directory", read_and_change)
    with pytest.raises(ConvertError, match=r"(d/file|name): changed while it was read"):
        open_directory(parse_reference(f"dir:{root}"), spool)


AS_NOBODY = """\
import os, sys
from converter import erofswriter, order
from converter.images.transports import open_image
from converter.layers import merge_layers
from converter.reference import parse_reference
from converter.spool import Spool
from store.errors import BootfsError
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
try:
    with Spool() as spool:
        image = open_image(parse_reference(sys.argv[1]), spool)
        print(*sorted(merge_layers(image.layers, spool).children))
except BootfsError as error:
    sys.exit(f"{error.exit_code}: {error}")
"""


def as_nobody(reference: str) -> subprocess.CompletedProcess[str]:
    top = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, reference],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(top), "TMPDIR": "/tmp"},
        check=False,
    )


@pytest.mark.requires("root")
def test_nobody_may_read_what_is_open_and_is_told_what_is_not() -> None:
    with tempfile.TemporaryDirectory(prefix="bootfs-test-", dir="/tmp") as directory:
        root = Path(directory) / "root"
        (root / "d").mkdir(parents=True)
        (root / "open").write_bytes(b"x")
        for path in (Path(directory), root, root / "d"):
            path.chmod(0o755)
        done = as_nobody(f"dir:{root}")
        assert done.stdout == "b'd' b'open'\n", done.stderr
        (root / "secret").write_bytes(b"x")
        (root / "secret").chmod(0o600)
        done = as_nobody(f"dir:{root}")
        assert done.stderr.startswith(
            f"{AccessDenied.exit_code}: {root}/secret: cannot be read: Permission denied"
        )


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
def test_a_tar_is_the_root(how: str, tmp_path: Path, spool: Spool) -> None:
    plain = tar_of(directory("etc/"), file("etc/x", DATA, uid=7))
    packed = {"none": plain, "gzip": gzip.compress(plain), "zstd": zstandard.compress(plain)}
    (tmp_path / "root.tar").write_bytes(packed[how])
    found = found_in(f"tar:{tmp_path}/root.tar", spool)
    assert list(found) == [b"", b"/etc", b"/etc/x"]
    assert (found[b"/etc/x"].uid, found[b"/etc/x"].size) == (7, len(DATA))


@pytest.mark.parametrize(
    ("data", "error"), [(None, NotFound), (b"", FormatError), (b"noise" * 999, FormatError)]
)
def test_what_is_no_tar_is_refused(
    data: bytes | None, error: type[Exception], tmp_path: Path, spool: Spool
) -> None:
    if data is not None:
        (tmp_path / "root.tar").write_bytes(data)
    with pytest.raises(error):
        found_in(f"tar:{tmp_path}/root.tar", spool)


def test_a_tar_is_no_directory(root: Path, tmp_path: Path, spool: Spool) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(NotFound, match="for a tar use tar:"):
        found_in(f"dir:{tmp_path}/x", spool)
    with pytest.raises(NotFound):
        found_in(f"dir:{tmp_path}/nowhere", spool)
    with pytest.raises(NotFound, match="not a file"):
        found_in(f"tar:{root}", spool)


def test_a_root_alone_is_converted_with_the_settings_given(
    run: Command, root: Path, tmp_path: Path
) -> None:
    store = ("--store", tmp_path / "store")
    settings = (
        *("--entrypoint", "/d/file -x", "--cmd", '["a b", "c"]', "--env", "A=b=c"),
        *("--env", "EMPTY=", "--user", "1:2", "--workdir", "/d"),
    )
    status, said = run("convert", f"dir:{root}", f"oci:{tmp_path}/b", *store, *settings)
    assert status == 0, said
    assert run("check", f"dir:{root}", f"oci:{tmp_path}/b", *store)[0] == 0
    facts = json.loads(run("inspect", f"oci:{tmp_path}/b", "--json")[1])
    assert (facts["source"], facts["entrypoint"]) == ("dir:root", ["/d/file", "-x"])
    assert run("export", f"oci:{tmp_path}/b", f"oci:{tmp_path}/e", *store)[0] == 0
    with Spool() as spool:
        config = open_image(parse_reference(f"oci:{tmp_path}/e"), spool).config["config"]
    assert config == {
        "Entrypoint": ["/d/file", "-x"],
        "Cmd": ["a b", "c"],
        "Env": ["A=b=c", "EMPTY="],
        "User": "1:2",
        "WorkingDir": "/d",
    }
    # Other settings make another image of the same directory.
    status, said = run("convert", f"dir:{root}", f"oci:{tmp_path}/b", *store)
    assert status == 0 and "chunks, 0 new" in said


@pytest.mark.parametrize(
    "option",
    [("--env", "A"), ("--env", "=b"), ("--cmd", ""), ("--cmd", "[1]"), ("--entrypoint", "'a")],
)
def test_settings_that_are_none_are_usage(option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["convert", "dir:/x", "oci:/y", *option])
    assert stopped.value.code == 2


def test_an_image_keeps_its_own_settings(run: Command, tmp_path: Path) -> None:
    (tmp_path / "i.tar").write_bytes(docker_archive(tar_of(file("f", b"x"))))
    status, said = run(
        *("convert", f"docker-archive:{tmp_path}/i.tar", f"oci:{tmp_path}/b", "--user", "1")
    )
    assert status == 2 and "settings of its own" in said


@pytest.mark.parametrize("transport", ["dir", "tar"])
def test_nothing_is_written_to_them(transport: str, tmp_path: Path) -> None:
    reference = parse_reference(f"{transport}:{tmp_path}/x")
    with pytest.raises(UsageError, match="not written to it"):
        check_destination(reference)
    with pytest.raises(UsageError, match="not written to it"):
        write_image(reference, {}, [])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_what_skopeo_copied_is_an_image(form: str, tmp_path: Path, spool: Spool) -> None:
    require("skopeo")
    layers = tar_of(file("a", DATA)), tar_of(file("b", b"2"))
    (tmp_path / "i.tar").write_bytes(docker_archive(*layers))
    copying = ["skopeo", "--insecure-policy", "copy", "-q", "--format", form]
    subprocess.run(
        [*copying, f"docker-archive:{tmp_path}/i.tar", f"dir:{tmp_path}/copied"], check=True
    )
    image = open_image(parse_reference(f"dir:{tmp_path}/copied"), spool)
    assert len(image.layers) == 2
    assert set(merge_layers(image.layers, spool).children) == {b"a", b"b"}
    manifest = tmp_path / "copied/manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    with pytest.raises(FormatError, match=r"manifest\.json"):
        open_image(parse_reference(f"dir:{tmp_path}/copied"), spool)


def test_a_root_with_a_file_manifest_json_is_a_root(root: Path, spool: Spool) -> None:
    (root / "manifest.json").write_text("{}")
    (root / "version").write_text("1.1\n")
    assert b"/version" in found_in(f"dir:{root}", spool)
