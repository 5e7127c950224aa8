"""Disks that are full or read-only: a clear error, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from converter.images.transports import write_image
from converter.images.view import Layer
from converter.reference import parse_reference
from converter.spool import Spool
from store.errors import AccessDenied, StorageFull
from tests.support.layers import file, tar_of

pytestmark = pytest.mark.system

DESTINATIONS = ["docker-archive", "oci-archive", "oci"]


@pytest.fixture
def mount_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a tmpfs with the given options, until the test ends."""

    def mount(options: str) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path], check=True)
        return tmp_path

    yield mount
    subprocess.run(["umount", tmp_path], check=True)


def test_spool_on_a_full_disk_names_path_and_place(mount_disk: Callable[[str], Path]) -> None:
    disk = mount_disk("size=1m")
    with Spool(disk, reserve=0) as spool:
        with (
            pytest.raises(StorageFull, match=rf"{disk}.*after [\d,]+ bytes of x.*TMPDIR"),
            spool.writing("x") as out,
        ):
            # Less than after which the free space is looked at again.
            for _ in range(300):
                out.write(bytes(4096))
        # What was written is free again.
        spool.store("y", bytes(900_000))
    assert os.listdir(disk) == []


@pytest.mark.parametrize("transport", DESTINATIONS)
def test_destination_on_a_full_disk(mount_disk: Callable[[str], Path], transport: str) -> None:
    disk = mount_disk("size=64k")
    layer = Layer.from_plain(tar_of(file("noise", os.urandom(200_000))))
    with pytest.raises(StorageFull, match=f"{disk}.*disk is full"):
        write_image(parse_reference(f"{transport}:{disk}/dest"), {}, [layer])
    assert os.listdir(disk) == []


@pytest.mark.parametrize("transport", DESTINATIONS)
def test_destination_on_a_read_only_disk(mount_disk: Callable[[str], Path], transport: str) -> None:
    disk = mount_disk("ro")
    with pytest.raises(AccessDenied, match=f"{disk}"):
        write_image(parse_reference(f"{transport}:{disk}/dest"), {}, [])
