"""Whose mounts are an engine's volumes, which get the image's content when they are new."""

from __future__ import annotations

import pytest

from boot.mounts import Mount
from boot.root import is_volume

ID, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
CONTAINERD = "/var/lib/containerd/io.containerd.grpc.v1.cri/containers"
PODS = "/var/lib/kubelet/pods/0b1e/volumes"


def mount_of(root: str, target: str = "/content") -> Mount:
    return Mount(f"10 1 8:1 {root} {target} rw - ext4 /dev/sda rw".encode())


@pytest.mark.parametrize(
    "root",
    [
        f"/var/lib/docker/volumes/{ID}/_data",
        "/docker/volumes/named/_data",
        f"/home/user/.local/share/containers/storage/volumes/{ID}/_data",
        f"{CONTAINERD}/{ID}/volumes/{OTHER}",
    ],
)
def test_volumes(root: str) -> None:
    assert is_volume(mount_of(root))
    assert not is_volume(mount_of(root, "/.bootfs/rw"))


@pytest.mark.parametrize(
    "root",
    [
        "/",
        "/srv/content",
        "/srv/_data",
        "/volumes/content",
        f"{PODS}/kubernetes.io~empty-dir/{ID}",
        f"{PODS}/{ID}",
        f"{CONTAINERD}/{ID}/volumes/{OTHER}/below",
        f"{CONTAINERD}/name/volumes/{OTHER}",
        f"/var/lib/docker/containers/{ID}/hosts",
    ],
)
def test_mounts_that_are_none(root: str) -> None:
    assert not is_volume(mount_of(root))
