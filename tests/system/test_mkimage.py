"""The converter as a container: what it writes boots, and what would be lost is not written."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from tests.support.converted import gateway
from tests.support.engine import BOOT_OPTIONS, Engine, docker, has_image
from tests.support.layers import docker_archive, file, tar_of
from tests.support.mkimage import build_mkimage
from tests.support.pods import pod_of, read_manifests, run_options
from tests.support.require import require
from tests.support.servers import Registry
from tests.support.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.system, pytest.mark.requires("docker", "fuse")]

TOP = Path(__file__).parents[2]
SOCKET = ("-v", "/var/run/docker.sock:/var/run/docker.sock")
BOOTFS = "/opt/bootfs/bin/bootfs"


@pytest.fixture(scope="module")
def mkimage(base_image: str) -> Iterator[str]:
    """Give the image of Dockerfile.mkimage."""
    require("docker")
    engine = Engine()
    reference = engine.image_name()
    build_mkimage(reference)
    yield reference
    engine.close()


def test_what_it_writes_boots(engine: Engine, mkimage: str, tmp_path: Path) -> None:
    source, boot = build_image(IMAGES["deb"]), engine.image_name()
    made = engine.run(mkimage, source, boot, options=(*SOCKET, "-v", f"{tmp_path}:/output"))
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(f"docker-daemon:{boot}: ")
    options = (*BOOT_OPTIONS, "-v", f"{tmp_path}:/store:ro", "-e", "BLOB_STORE=/store")
    done = engine.run(boot, options=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "READY\n", "")
    # Installed, not from the tree: each mode is there.
    for mode in ("fuse", "lease", "eager"):
        done = engine.run(boot, options=(*options, "-e", f"BOOTFS_MODE={mode}"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "READY\n", ""), mode
    check = [sys.executable, "-m", "converter.cli", "check", source, boot, "--store", str(tmp_path)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0


def test_from_registry_to_registry_it_needs_neither_engine_nor_root(
    engine: Engine, mkimage: str, tmp_path: Path
) -> None:
    require("registry")
    with Registry(tmp_path / "blobs") as registry:
        source, boot = (f"{registry.host_port}/{name}:latest" for name in ("deb", "deb-lazy"))
        docker("tag", build_image(IMAGES["deb"]), source)
        docker("push", "-q", source)
        given = (f"docker://{source}", f"docker://{boot}", "--store", "registry")
        options = ("--network", "host", "--user", "12345", "--read-only", "--tmpfs", "/tmp")
        made = engine.run(mkimage, *given, options=options)
        assert made.returncode == 0, made.stderr
        try:
            done = engine.run(boot, options=("--network", "host"))
            assert (done.returncode, done.stdout) == (0, "READY\n"), done.stderr
        finally:
            docker("rmi", "-f", source, boot)


def test_without_a_place_for_the_store_it_refuses(engine: Engine, mkimage: str) -> None:
    boot = engine.image_name()
    done = engine.run(mkimage, build_image(IMAGES["deb"]), boot, options=SOCKET)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "bootfs: /output is not on a mount, and would go with the container: "
        "give docker run -v DIRECTORY:/output\n"
    )
    assert not has_image(boot)


def test_it_writes_over_ssh(engine: Engine, mkimage: str, tmp_path: Path) -> None:
    require("sshd", "root")
    source, boot = build_image(IMAGES["deb"]), engine.image_name()
    with Sshd(addresses=[gateway()]) as sshd:
        url = sshd.url_of(tmp_path / "store", address=sshd.addresses[1])
        options = (*SOCKET, "-v", f"{sshd.auth}:/root/.ssh:ro")
        given = (source, boot, "--store", url, "--blob-store", url)
        made = engine.run(mkimage, *given, options=options)
        assert made.returncode == 0, made.stderr
        options = (*BOOT_OPTIONS, "-v", f"{sshd.auth}:/.bootfs/auth:ro")
        done = engine.run(boot, options=options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "READY\n", "")


def test_it_needs_no_more_than_the_job_of_the_sample_gives(
    engine: Engine, mkimage: str, tmp_path: Path
) -> None:
    pod = copy.deepcopy(pod_of(read_manifests()["convert-job.yaml"]))
    options = run_options(pod, tmp_path, {})
    (tmp_path / "source.tar").write_bytes(docker_archive(tar_of(file("f", b"x" * 99_999))))
    assert any(option.startswith("--user=1") for option in options)
    tmp_path.chmod(0o777)
    options += ["--network=none", f"--volume={tmp_path}:/data", "--entrypoint", BOOTFS]
    store = ("--store", "/data/store")
    done = engine.run(
        *(mkimage, "convert", "docker-archive:/data/source.tar", "oci:/data/boot", *store),
        options=options,
    )
    assert done.returncode == 0, done.stderr
    done = engine.run(
        *(mkimage, "check", "docker-archive:/data/source.tar", "oci:/data/boot", *store),
        options=options,
    )
    assert done.stdout == "2 entries compared, 0 differences\n", done.stderr
