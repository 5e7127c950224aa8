"""Volumes of a running container that fill up: reads go on, writes fail as natively, room helps."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import docker
from tests.support.faultlog import FaultCase
from tests.support.require import require

if TYPE_CHECKING:
    from tests.support.converted import Converted
    from tests.support.engine import Container, Engine
    from tests.support.faultlog import FaultLog

pytestmark = pytest.mark.system

DISK = 24 << 20
READ = (
    "sha256sum /big && find /usr/lib/x86_64-linux-gnu -type f | sort | xargs sha256sum | sha256sum"
)
"""More than the disk holds."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk, as a directory."""
    require("root")
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def fill(disk: Path) -> Path:
    """Take all that is free."""
    filling = disk / "filling"
    with filling.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(65536))
    return filling


def free(disk: Path) -> int:
    done = subprocess.run(
        ["df", "--output=avail", "-B1", disk], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("mode", ["erofs", "fuse", "lease"])
def test_reads_go_on_when_the_cache_is_full_and_keep_again_when_it_is_not(
    engine: Engine, workshop_in: dict[str, Converted], disk: Path, fault_log: FaultLog, mode: str
) -> None:
    image = workshop_in[mode]
    right = image.run_source(engine, "sh", "-c", READ).stdout
    options = ("-v", f"{disk}:/.bootfs/cache")
    filling = fill(disk)
    for _ in range(1 if mode == "lease" else 2):
        done = image.run(engine, "sh", "-c", READ, options=options)
        assert (done.returncode, done.stdout) == (0, right)
        assert "cache" in done.stderr and "No space left on device" in done.stderr
        assert all(line.startswith("bootfs: cache") for line in done.stderr.splitlines())
    filling.unlink()
    # It fills up now, in the middle of the reads.
    done = image.run(engine, "sh", "-c", READ, options=options)
    assert (done.returncode, done.stdout) == (0, right)
    assert "No space left on device; reading on without keeping" in done.stderr
    assert free(disk) < 1 << 20
    fault_log.record(FaultCase("disk", "the cache's is full", mode, "right bytes", 2, 2))
    if mode == "lease":
        return
    # And with what it has, the next one is right too.
    done = image.run(engine, "sh", "-c", READ, options=options)
    assert (done.returncode, done.stdout) == (0, right)


def write_until_full(container: Container) -> str:
    """Write more than there can be room for; give what the writer said, but for how much it was."""
    script = "dd if=/dev/zero of=/var/tmp/filling bs=65536 count=10000 2>&1 | head -1; ls /var/tmp"
    return docker("exec", container.name, "sh", "-c", script).stdout


@pytest.mark.parametrize("mode", ["erofs", "fuse"])
def test_the_workload_s_writes_fail_as_natively_and_work_again_when_there_is_room(
    engine: Engine, workshop_in: dict[str, Converted], disk: Path, fault_log: FaultLog, mode: str
) -> None:
    image = workshop_in[mode]
    plain = engine.start(image.source, "sleep", "600", options=("-v", f"{disk}:/var/tmp"))
    natively = write_until_full(plain)
    assert "No space left on device" in natively
    docker("rm", "-f", plain.name)
    (disk / "filling").unlink()

    container = image.start(engine, "sleep", "600", options=("-v", f"{disk}:/.bootfs/rw"))
    assert write_until_full(container) == natively.replace("lost+found\n", "")
    # What is read needs no room there; what is changed does.
    done = docker("exec", container.name, "sh", "-c", "cd / && sha256sum -c big.sum")
    assert done.stdout == "/big: OK\n"
    refused = docker("exec", container.name, "sh", "-c", "echo x >>/big", check=False)
    assert refused.returncode and "No space left on device" in refused.stderr
    assert docker("exec", container.name, "rm", "/var/tmp/filling").stderr == ""
    docker("exec", container.name, "sh", "-c", "echo again >/etc/new && grep again /etc/new")
    docker("rm", "-f", container.name)
    outcome = "right bytes; ENOSPC for the writer, as natively, until there is room"
    fault_log.record(FaultCase("disk", "the writable layer's is full", mode, outcome, 1, 1))


@pytest.fixture(scope="module")
def workshop_in(converted_workshop: Converted) -> dict[str, Converted]:
    """The workshop in each mode."""
    return {
        mode: dataclasses.replace(converted_workshop, mode=mode)
        for mode in ("erofs", "fuse", "lease")
    }
