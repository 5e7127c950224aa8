"""A running container's root, byte for byte and attribute for attribute the tree it was made of."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from tests.support.dump import compare, dump_directory, dump_tree
from tests.support.layers import docker_archive
from tests.support.trees import make_file, random_tree
from tests.support.treetar import tar_of_tree, without_what_tars_lack

if TYPE_CHECKING:
    from tests.support.converted import Conversions
    from tests.support.engine import Container, Engine

pytestmark = pytest.mark.system

PAUSE = b"pause-for-ever"
ENGINE_PLACES = {
    b"/" + name
    for name in (
        *(b"proc", b"sys", b"dev", b".dockerenv"),
        *(b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b"etc/mtab"),
    )
}


@pytest.fixture(scope="module")
def pause(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Give a static program that does nothing, for ever."""
    place = tmp_path_factory.mktemp("pause")
    (place / "pause.c").write_text("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")
    subprocess.run(["gcc", "-static", "-o", place / "pause", place / "pause.c"], check=True)
    return (place / "pause").read_bytes()


def root_of(container: Container) -> str:
    """Give the container's root, seen from outside."""
    return f"/proc/{container.pid()}/root/."


@pytest.mark.parametrize("seed", range(6))
def test_random_trees(
    engine: Engine, conversions: Conversions, pause: bytes, tmp_path: Path, seed: int
) -> None:
    tree = without_what_tars_lack(random_tree(Random(seed), huge=False))
    tree.children[PAUSE] = make_file(pause, mode=0o755)
    archive = tmp_path / "source.tar"
    archive.write_bytes(docker_archive(tar_of_tree(tree)))
    image = conversions.convert(f"docker-archive:{archive}")
    # Engines take nothing from a layer for the root itself, and put a directory in for /etc.
    ignored = {b"", b"/etc"} - ({b"/etc"} & dump_tree(tree).keys())
    expected = {path: entry for path, entry in dump_tree(tree).items() if path not in ignored}
    for mode in ("erofs", "fuse"):
        booted = dataclasses.replace(image, mode=mode)
        container = booted.start(engine, "/" + PAUSE.decode())
        found = dump_directory(root_of(container), skip=ENGINE_PLACES)
        found = {path: entry for path, entry in found.items() if path not in ignored}
        assert compare(expected, found, directory_links=False) == [], mode
        container.remove()


@pytest.mark.parametrize("mode", ["erofs", "fuse"])
def test_a_real_image(engine: Engine, conversions: Conversions, mode: str) -> None:
    image = conversions.convert(build_image(IMAGES["node"]))
    plain = engine.start(image.source, "sleep", "1000")
    booted = dataclasses.replace(image, mode=mode).start(engine, "sleep", "1000")
    expected = dump_directory(root_of(plain), skip=ENGINE_PLACES)
    found = dump_directory(root_of(booted), skip=ENGINE_PLACES)
    # The engine has made its files in these two, so they are as old as the container.
    changed = {b"", b"/etc"}
    for tree in (expected, found):
        for path in changed:
            tree[path] = dataclasses.replace(tree[path], mtime_ns=0)
    assert len(found) > 5000
    # overlayfs counts the links of directories by how many layers it merges.
    assert compare(expected, found, directory_links=False) == []
