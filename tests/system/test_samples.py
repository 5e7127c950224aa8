"""What the samples print is what somebody would type next: run here as he would."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from tests.support.engine import docker, has_image
from tests.support.require import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.converted import Conversions

pytestmark = [pytest.mark.system, pytest.mark.requires("docker", "erofs", "fuse", "root", "nginx")]

TOP = Path(__file__).parents[2]
CHECKOUT = ("boot", "converter", "sample", "scripts", "store", "pyproject.toml", "README.md")
BOOT_IMAGE = "bootfs-demo:latest"
CACHE = "bootfs-cache"
SIGNED = "bootfs-signed:latest"
OVER_SSH = "bootfs-ssh:latest"
IN_S3 = "bootfs-s3:latest"
IN_A_DIRECTORY = "bootfs-directory:latest"
OVER_HTTP = "bootfs-http:latest"


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """Give a fresh checkout, whose demo is not the one that somebody may have running."""
    ignore = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info")
    for name in CHECKOUT:
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, tmp_path / name, ignore=ignore)
        else:
            shutil.copy(TOP / name, tmp_path / name)
    # Under another name, since an image without any is gone.
    kept = f"{BOOT_IMAGE}-kept"
    is_there = has_image(BOOT_IMAGE)
    if is_there:
        docker("tag", BOOT_IMAGE, kept)
    yield tmp_path
    subprocess.run([tmp_path / "scripts/demo", "--stop"], capture_output=True, check=False)
    docker("rmi", "-f", BOOT_IMAGE, check=False)
    if is_there:
        docker("tag", kept, BOOT_IMAGE)
        docker("rmi", kept)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command and give its output, exit code and errors."""
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_demo_twice_in_a_row(checkout: Path) -> None:
    source = build_image(IMAGES["deb"])
    lines = []
    for _ in range(2):
        done = run(checkout / "scripts/demo", source)
        assert done.returncode == 0, done.stdout + done.stderr
        for row in ("docker run, image present", "lazy boot, cold", "lazy boot, warm"):
            (line,) = (line for line in done.stdout.splitlines() if row in line)
            assert float(line.split(row)[1].split()[0]) > 0
        *_, line = done.stdout.splitlines()
        lines.append(line)
        assert line.startswith("docker run --rm ")
        command = shlex.split(line)
        (url,) = (word.partition("=")[2] for word in command if word.startswith("BLOB_STORE="))
        assert f"The store is served at {url} until scripts/demo --stop" in done.stdout
        booted = run(*command)
        assert (booted.returncode, booted.stdout, booted.stderr) == (0, "READY\n", "")
    assert lines[0] == lines[1]
    stopped = run(checkout / "scripts/demo", "--stop")
    assert (stopped.returncode, stopped.stdout) == (0, "")
    assert stopped.stderr == "demo: the web server has ended\n"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)
    stopped = run(checkout / "scripts/demo", "--stop")
    assert (stopped.returncode, stopped.stderr) == (0, "demo: no web server was running\n")


def test_the_demo_says_what_it_cannot_convert(checkout: Path) -> None:
    done = run(checkout / "scripts/demo", f"docker-archive:{checkout}/none.tar")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"bootfs: {checkout}/none.tar: " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_shared_cache(conversions: Conversions) -> None:
    image = conversions.convert(build_image(IMAGES["deb"]))
    was_there = docker("container", "inspect", CACHE, check=False).returncode == 0
    try:
        done = run(TOP / "sample/cache/run", image.boot, image.store)
        assert (done.returncode, done.stdout) == (0, "READY\nREADY\n"), done.stderr
        first, second, *_, line = done.stderr.splitlines()
        assert first.startswith("first start: ")
        assert second.startswith("second start: ")
        conversions.server.forget()
        booted = run(*shlex.split(line))
        assert (booted.returncode, booted.stdout, booted.stderr) == (0, "READY\n", "")
        assert conversions.server.requests() == []
    finally:
        if not was_there:
            docker("rm", "-f", "-v", CACHE, check=False)
            docker("rmi", "-f", f"{CACHE}:latest", check=False)
    done = run(TOP / "sample/cache/run")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_signing(conversions: Conversions) -> None:
    require("skopeo", "gpg")
    image = conversions.convert(build_image(IMAGES["deb"]))
    was_there = has_image(SIGNED)
    try:
        done = run(TOP / "sample/signing/run", image.boot, image.store)
    finally:
        if not was_there:
            docker("rmi", "-f", SIGNED, check=False)
    assert (done.returncode, done.stdout) == (0, "READY\n"), done.stderr
    first, *refused, last = done.stderr.splitlines()
    assert first.startswith(f"signed: {SIGNED} by ")
    assert last == f"let in: {SIGNED}"
    # Manifest, configuration, the layers, and the signature itself.
    layers = json.loads(docker("inspect", image.boot).stdout)[0]["RootFS"]["Layers"]
    assert len(refused) == len(layers) + 3
    assert all(line.startswith("refused, ") for line in refused)
    done = run(TOP / "sample/signing/run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_a_store_over_ssh() -> None:
    require("sshd")
    source = build_image(IMAGES["deb"])
    was_there = has_image(OVER_SSH)
    try:
        done = run(TOP / "sample/ssh/run", source)
    finally:
        if not was_there:
            docker("rmi", "-f", OVER_SSH, check=False)
    assert (done.returncode, done.stdout) == (0, "READY\n"), done.stderr
    lines = done.stderr.splitlines()
    assert any("0 differences" in line for line in lines)
    assert any(line.startswith(f"booted: {OVER_SSH} from ssh://") for line in lines)
    assert lines[-1].startswith("bootfs: ") and "is not the one in" in lines[-1]
    done = run(TOP / "sample/ssh/run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_the_registry() -> None:
    require("registry", "skopeo")
    done = run(TOP / "sample/registry/run", build_image(IMAGES["deb"]))
    assert (done.returncode, done.stdout) == (0, "READY\n"), done.stderr
    converted, first, copied, left = done.stderr.splitlines()
    assert converted.startswith("converted: docker://127.0.0.1:")
    assert first.startswith("booted from the first registry: docker run --rm ")
    assert copied == "booted from a copy, the first registry stopped"
    assert left == "forgotten and collected: nothing is left"
    done = run(TOP / "sample/registry/run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_s3() -> None:
    require("rclone")
    was_there = has_image(IN_S3)
    try:
        done = run(TOP / "sample/s3/run", build_image(IMAGES["deb"]))
    finally:
        if not was_there:
            docker("rmi", "-f", IN_S3, check=False)
    assert (done.returncode, done.stdout) == (0, "READY\n"), done.stderr
    converted, refused, last = done.stderr.splitlines()
    assert converted.startswith(f"docker-daemon:{IN_S3}: ")
    assert refused.endswith("asked without credentials: /.bootfs/auth/s3 is missing")
    assert last.endswith(f"-v DIRECTORY:/.bootfs/auth:ro {IN_S3}")
    done = run(TOP / "sample/s3/run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_a_directory() -> None:
    was_there = has_image(IN_A_DIRECTORY)
    try:
        done = run(TOP / "sample/directory/run", build_image(IMAGES["deb"]))
    finally:
        if not was_there:
            docker("rmi", "-f", IN_A_DIRECTORY, check=False)
    assert (done.returncode, done.stdout) == (0, "READY\n"), done.stderr
    lines = done.stderr.splitlines()
    assert any(line.endswith(" entries compared, 0 differences") for line in lines)
    assert any(line.endswith("1 images checked, 0 problems") for line in lines)
    assert lines[-1].startswith("shorter: docker run --rm -v ")
    done = run(TOP / "sample/directory/run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_a_web_server() -> None:
    was_there = has_image(OVER_HTTP)
    try:
        done = run(TOP / "sample/http/run", build_image(IMAGES["deb"]))
    finally:
        if not was_there:
            docker("rmi", "-f", OVER_HTTP, check=False)
    assert (done.returncode, done.stdout) == (0, "READY\n"), done.stderr
    converted, asked, refused, last = done.stderr.splitlines()
    assert converted.startswith(f"docker-daemon:{OVER_HTTP}: ")
    assert asked.startswith("http://") and asked.endswith("all can be fetched")
    assert "401; the server refuses access: mount a directory" in refused
    assert last.endswith(f"-v DIRECTORY:/.bootfs/auth:ro {OVER_HTTP}")
    done = run(TOP / "sample/http/run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")
