"""What changed between two boot images, told from their trees, their chunks, or their bytes."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from converter.cli import main
from tests.support.layers import (
    char_device,
    config_of,
    directory,
    docker_archive,
    file,
    hardlink,
    symlink,
    tar_of,
)

DATA = Random(1).randbytes(900_000)
OLD = (
    directory("d/"),
    file("d/a", b"small a"),
    file("d/b", b"small b"),
    file("large", DATA),
    file("gone", b"x"),
    file("hollow", bytes(1 << 20)),
    symlink("link", "target"),
    char_device("device", 1, 3),
    hardlink("name", "large"),
    file("was a file", b"x"),
)
NEW = (
    directory("d/", mode=0o700),
    file("d/a", b"small A"),
    file("d/b", b"small b"),
    file("large", DATA[:500_000] + b"!" + DATA[500_001:]),
    file("hollow", bytes(1 << 20), uid=7),
    symlink("link", "elsewhere"),
    char_device("device", 1, 5),
    file("name", b"by itself", xattrs={"user.a": b"1"}, mtime=5),
    directory("was a file/"),
    file("was a file/new", b"n"),
)
Diff = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Diff:
    """Give a function that converts two images and compares them."""

    def call(old: Any, new: Any, *options: str) -> tuple[int, dict[str, Any]]:
        for name, (layer, settings) in (("a", old), ("b", new)):
            archive = docker_archive(layer, config=config_of([layer], config=settings))
            (tmp_path / f"{name}.tar").write_bytes(archive)
            arguments = [f"docker-archive:{tmp_path}/{name}.tar", f"oci:{tmp_path}/{name}"]
            assert main(["convert", *arguments, "--store", str(tmp_path / "store")]) == 0
        capsys.readouterr()
        options = tuple(option.replace("STORE", str(tmp_path / "store")) for option in options)
        status = main(["diff", f"oci:{tmp_path}/a", f"oci:{tmp_path}/b", "--json", *options])
        return status, json.loads(capsys.readouterr().out)

    return call


def test_equal_images_differ_in_nothing(diff: Diff) -> None:
    image = tar_of(*OLD), {"Cmd": ["x"]}
    status, found = diff(image, image)
    assert status == 0
    assert found["changes"] == found["settings"] == []
    transfer = found["transfer"]
    assert (transfer["new_chunks"], transfer["new_stored"]) == (0, 0) < (transfer["chunks"],)


def test_every_kind_of_change_is_told(diff: Diff) -> None:
    status, found = diff((tar_of(*OLD), {}), (tar_of(*NEW), {}), "--store", "STORE")
    assert status == 4
    changes = {change["path"]: (change["kind"], *change["what"]) for change in found["changes"]}
    assert changes == {
        "/d": ("changed", "mode"),
        "/d/a": ("changed", "bytes"),
        "/device": ("changed", "device"),
        "/gone": ("removed",),
        "/hollow": ("changed", "owner"),
        "/large": ("changed", "bytes"),
        "/link": ("changed", "target"),
        "/name": ("changed", "mtime", "xattrs", "size", "links"),
        "/was a file": ("changed", "kind"),
        "/was a file/new": ("added",),
    }


def test_the_store_tells_what_chunks_do_not(diff: Diff) -> None:
    images = (tar_of(*OLD), {}), (tar_of(*NEW), {})
    without = diff(*images)[1]["changes"]
    # The neighbour of what changed is cut with it.
    assert {"kind": "undecided", "path": "/d/b", "what": ["bytes"]} in without
    assert {"kind": "undecided", "path": "/d/a", "what": ["bytes"]} in without
    with_store = diff(*images, "--store", "STORE")[1]["changes"]
    assert not any(change["path"] == "/d/b" for change in with_store)


def test_what_is_to_be_transferred_is_what_the_first_lacks(diff: Diff, tmp_path: Path) -> None:
    new = tar_of(file("x", DATA), file("more", Random(2).randbytes(100_000)))
    found = diff((tar_of(file("x", DATA)), {}), (new, {}))[1]["transfer"]
    assert found["new_chunks"] < found["chunks"]
    assert 100_000 < found["new_stored"] < 101_000
    assert found["stored"] > 1_000_000


def test_settings_are_compared(diff: Diff) -> None:
    layer = tar_of(*OLD)
    status, found = diff(
        (layer, {"Cmd": ["a"], "Entrypoint": ["/e"], "Volumes": {}, "Env": ["A=1"], "Image": "x"}),
        (layer, {"Cmd": ["b"], "Entrypoint": ["/f"], "Env": ["A=1"]}),
    )
    assert (status, found["settings"], found["changes"]) == (4, ["Cmd", "Entrypoint"], [])


def test_it_is_readable(diff: Diff, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diff((tar_of(*OLD), {}), (tar_of(*NEW), {"Cmd": ["x"]}))
    assert main(["diff", f"oci:{tmp_path}/a", f"oci:{tmp_path}/b"]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert "+ /was a file/new" in lines and "- /gone" in lines
    assert "~ /link (target)" in lines and "? /d/b (bytes)" in lines and "~ setting Cmd" in lines
    assert "undecided (--store URL compares their bytes)" in lines[-1]
    assert "stored bytes to transfer" in lines[-1]


def test_what_is_no_boot_image_is_refused(diff: Diff, tmp_path: Path) -> None:
    diff((tar_of(*OLD), {}), (tar_of(*NEW), {}))
    assert main(["diff", f"oci:{tmp_path}/a", f"docker-archive:{tmp_path}/b.tar"]) == 2
