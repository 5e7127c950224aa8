"""Each container has a name of its own on its volume, whatever it shares with others."""

from __future__ import annotations

import os

import pytest

from boot.mounts import Mount
from boot.root import container_name

LAYER, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
HOSTS = f"/var/lib/docker/containers/{OTHER}/hosts /etc/hosts rw - ext4 /dev/sda rw"


def name_of(root: str, *others: str) -> str:
    """Return the name of a container with this root, and with these mounts in it."""
    lines = (f"{10 + at} 1 0:1 {line}" for at, line in enumerate((root, *others)))
    return container_name([Mount(line.encode()) for line in lines])


@pytest.mark.parametrize(
    "place", ["/var/lib/docker/overlay2", "/var/lib/containers/storage/overlay"]
)
def test_an_own_layer_counts_more_than_shared_files(place: str) -> None:
    options = f"lowerdir=/l/A:/l/B,upperdir={place}/{LAYER}/diff,workdir={place}/{LAYER}/work"
    assert name_of(f"/ / rw - overlay overlay rw,{options}", HOSTS) == LAYER


def test_containers_of_one_pod_differ_by_their_snapshot() -> None:
    names = set()
    for number in (7, 12):
        upper = f"/var/lib/containerd/snapshots/{number}/fs"
        names.add(name_of(f"/ / rw - overlay overlay rw,lowerdir=/l,upperdir={upper}", HOSTS))
    assert names == {f"{OTHER}.7", f"{OTHER}.12"}


def test_without_an_overlay_the_root_is_the_layer() -> None:
    assert name_of(f"/docker/vfs/dir/{LAYER} / rw - ext4 /dev/sda rw", HOSTS) == LAYER
    assert name_of("/snapshots/7 / rw - ext4 /dev/sda rw") == f"{os.uname().nodename}.7"


def test_without_a_layer_it_is_what_the_engine_shows() -> None:
    root = "/ / rw - ext4 /dev/sda rw"
    assert name_of(root, HOSTS) == OTHER
    assert name_of(root) == os.uname().nodename


def test_the_last_root_counts() -> None:
    hidden = "/ / rw - rootfs none rw"
    options = f"lowerdir=/l,upperdir=/d/{LAYER}/diff"
    assert name_of(hidden, HOSTS, f"/ / rw - overlay overlay rw,{options}") == LAYER
