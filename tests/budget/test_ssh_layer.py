"""The second shared layer: small, whole, the same everywhere, and only where it is wanted."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from converter.cli import main
from converter.runtime import RuntimeLayer, open_ssh, sshcontents
from converter.runtime.layer import cache_directory
from converter.runtime.lock import parse_lock, read_lock_text
from store.read import sshlogin, sshprogram
from tests.support.layers import file, oci_layout, tar_of
from tests.support.runtime import Bundle

SIZE_LIMIT = 1_500_000
"""Gzipped: what an image pays for ssh once on a machine."""


@pytest.fixture(scope="module")
def layer() -> RuntimeLayer:
    return open_ssh()


@pytest.fixture(scope="module")
def bundle(layer: RuntimeLayer, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Both layers over one another."""
    bundle = Bundle(tmp_path_factory.mktemp("bundle"))
    with tarfile.open(layer.plain_path) as tar:
        tar.extractall(bundle.root.parent, filter="tar")
    return bundle


def test_the_layer_is_within_its_budget_and_is_what_it_says(layer: RuntimeLayer) -> None:
    stored = layer.stored_path.read_bytes()
    plain = layer.plain_path.read_bytes()
    assert len(stored) == layer.size <= SIZE_LIMIT
    assert layer.digest == f"sha256:{hashlib.sha256(stored).hexdigest()}"
    assert layer.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert gzip.decompress(stored) == plain


def test_every_member_is_root_s_and_nothing_else_is_in_it(layer: RuntimeLayer) -> None:
    with tarfile.open(layer.plain_path) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert list(members) == sorted(members)
    for member in members.values():
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert member.mtime == 1
    files = {name for name, member in members.items() if member.isfile()}
    top = ".bootfs/ssh"
    expected = {f"{top}/{name}" for name in (*sshcontents.BINARIES, *sshcontents.TEXTS)}
    licences = {name for name in files if name.startswith(f"{top}/licences/")}
    assert files == expected | licences | {".bootfs/dev/null"}
    assert members[f"{top}/keys"].mode == 0o700
    assert {members[f"{top}/{name}"].mode for name in ("ssh", "askpass")} == {0o755}
    assert len(licences) >= len(sshcontents.DEBIAN_PACKAGES) - 2  # krb5's are in one package


def test_the_reader_looks_where_the_layer_is() -> None:
    assert f"/.bootfs/{sshcontents.SSH}" == sshprogram.LAYER
    assert f"{sshprogram.LAYER}/{sshcontents.KEYS}" == sshprogram.KEYS
    assert sshlogin.ASKS_FILE.encode() in sshcontents.TEXTS["askpass"]


def test_both_layers_are_of_one_c_library() -> None:
    ours = {e.name: e for e in parse_lock(read_lock_text(sshcontents.LOCK)).inputs}
    runtime = {e.name: e for e in parse_lock(read_lock_text()).inputs}
    assert set(ours) == set(sshcontents.DEBIAN_PACKAGES)
    assert all(ours[name] == runtime[name] for name in ours.keys() & runtime.keys())
    assert "libc6" in ours.keys() & runtime.keys()


def test_every_library_that_is_needed_is_there(bundle: Bundle) -> None:
    ssh = bundle.root / "ssh"
    libraries = f"{bundle.runtime}/lib:{ssh}/lib"
    command = [bundle.runtime / "ld.so", "--library-path", libraries, "--list"]
    used = set()
    for path in [ssh / "ssh", *(ssh / "lib").iterdir()]:
        done = subprocess.run([*command, path], capture_output=True, text=True, check=True, env={})
        for line in done.stdout.splitlines():
            assert "not found" not in line
            assert "=>" not in line or str(bundle.root) in line, f"{path.name}: {line}"
            used.add(Path(line.split()[0]).name)
    # Nothing is carried in vain; the wrapper is loaded by name.
    carried = {path.name for path in (ssh / "lib").iterdir()}
    assert carried - used == {"libnss_wrapper.so"}


def test_another_machine_makes_the_same_bytes(layer: RuntimeLayer, tmp_path: Path) -> None:
    checkout = tmp_path / "else where"
    for package in ("boot", "converter", "store"):
        shutil.copytree(package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "inputs").symlink_to(cache_directory() / "inputs")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(checkout),
        "PYTHONHASHSEED": "7",
        "HOME": str(tmp_path),
        "BOOTFS_RUNTIME_CACHE": str(cache),
        "LANG": "en_US.ISO-8859-1",
        "TZ": "Asia/Tokyo",
    }
    code = "from converter.runtime import open_ssh; print(open_ssh().digest)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, env=environment, umask=0o077,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == layer.digest


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ((), 2),
        (("--with-ssh",), 3),
        (("--blob-store", "ssh://host/a"), 3),
        (("--blob-store", "http://host/a|SFTP://me@host:22/a"), 3),
        (("--blob-store", "http://host/a"), 2),
    ],
)
def test_only_images_that_need_it_have_it(
    layer: RuntimeLayer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    count: int,
) -> None:
    source = oci_layout(tmp_path / "source", tar_of(file("text", b"some text " * 50_000)))
    given = ["convert", f"oci:{source}", f"oci:{tmp_path}/boot", "--store", f"{tmp_path}/store"]
    assert main([*given, *options, "--json", "--progress", "none"]) == 0
    report = json.loads(capsys.readouterr().out)
    index = json.loads((tmp_path / "boot" / "index.json").read_text())
    manifest = json.loads(blob(tmp_path / "boot", index["manifests"][0]["digest"]))
    digests = [layer["digest"] for layer in manifest["layers"]]
    assert len(digests) == count
    assert (layer.digest in digests[1:-1]) == (count == 3)
    sizes = sum(layer["size"] for layer in manifest["layers"][:-1])
    assert report["boot_image"]["runtime_layer_bytes"] == sizes
    config = json.loads(blob(tmp_path / "boot", manifest["config"]["digest"]))
    assert len(config["history"]) == len(config["rootfs"]["diff_ids"]) == count
    check = ["check", f"oci:{source}", f"oci:{tmp_path}/boot", "--store", f"{tmp_path}/store"]
    assert main(check) == 0


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()
