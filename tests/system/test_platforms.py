"""An image index of boot images, as an engine takes it: the one for its machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converter.cli import main
from tests.support.converted import gateway
from tests.support.engine import BOOT_OPTIONS, docker
from tests.support.indexes import Index
from tests.support.layers import file, tar_of
from tests.support.registrystores import Stored
from tests.support.require import require
from tests.support.servers import Registry

if TYPE_CHECKING:
    from tests.support.engine import Engine

pytestmark = [
    pytest.mark.system,
    pytest.mark.requires("docker", "erofs", "fuse", "root", "registry", "gcc"),
]

PROGRAM = """\
#include <unistd.h>
#include <fcntl.h>
int main(void) {
    static char held[64];
    int own = open("/own", O_RDONLY);
    return write(1, held, read(own, held, sizeof held)) < 1;
}
"""


@pytest.fixture
def stored() -> Iterator[Stored]:
    with Registry(address="") as registry:
        yield Stored(registry, gateway())


@pytest.fixture
def program(tmp_path: Path) -> bytes:
    """Give a static program that prints a file of the image."""
    (tmp_path / "p.c").write_text(PROGRAM)
    command = ["gcc", "-static", "-Os", "-s", "-o", tmp_path / "p", tmp_path / "p.c"]
    subprocess.run(command, check=True)
    return (tmp_path / "p").read_bytes()


@pytest.mark.parametrize("mode", ["erofs", "lease"])
def test_the_engine_pulls_the_one_for_its_machine_and_boots_it(
    engine: Engine, stored: Stored, program: bytes, tmp_path: Path, mode: str
) -> None:
    require("skopeo")
    index = Index()
    for platform in ("linux/arm64", "linux/amd64"):
        layer = tar_of(file("p", program, mode=0o755), file("own", platform.encode() + b"\n"))
        index.add(platform, layer)
        index.add_attestation()
    source, boot = index.write(tmp_path / "s"), f"{stored.url}:v1"
    convert = ["convert", source, boot, "--store", "registry", "--platform", "all"]
    assert main([*convert, "--blob-store", stored.blob_store]) == 0
    name = boot.removeprefix("docker://")
    try:
        docker("pull", "-q", name)
        facts = json.loads(docker("image", "inspect", name).stdout)[0]
        assert facts["Architecture"] == "amd64"
        options = (*(BOOT_OPTIONS if mode == "erofs" else ()), "-e", f"BOOTFS_MODE={mode}")
        done = engine.run(name, "/p", options=options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "linux/amd64\n", "")
    finally:
        docker("rmi", "-f", name)
    # The other is in it too: who asks for it gets it.
    command = ["skopeo", "inspect", "--config", "--override-arch", "arm64", "--tls-verify=false"]
    config = json.loads(subprocess.run([*command, boot], capture_output=True, check=True).stdout)
    assert config["architecture"] == "arm64"
    assert config["config"]["Entrypoint"] == ["/.bootfs/init"]
