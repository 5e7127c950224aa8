"""Trees in memory booted as containers, to be looked at from outside while nothing runs in them."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.layers import docker_archive
from tests.support.trees import make_file
from tests.support.treetar import tar_of_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from converter.tree import Node
    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Container, Engine

PAUSE = b"pause-for-ever"
ENGINE_PLACES = {
    b"/" + name
    for name in (
        *(b"proc", b"sys", b"dev", b".dockerenv", b".bootfs"),
        *(b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b"etc/mtab"),
    )
}
"""What the engine, and in modes that mount nothing bootfs, puts into every container."""
MODES = ("erofs", "fuse", "lease", "eager")


def make_pause(directory: Path) -> Path:
    """Make a static program that does nothing, for ever."""
    source, program = directory / "pause.c", directory / "pause"
    source.write_text("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")
    subprocess.run(["gcc", "-static", "-s", "-o", program, source], check=True)
    return program


def convert_layers(conversions: Conversions, directory: Path, *layers: bytes) -> Converted:
    """Give an image of layers."""
    archive = directory / "source.tar"
    archive.write_bytes(docker_archive(*layers))
    return conversions.convert(f"docker-archive:{archive}")


def convert_tree(
    conversions: Conversions, tree: Node, pause: Path, directory: Path
) -> tuple[Converted, bytes]:
    """Give an image of a tree in memory, with `PAUSE` put into it, and its layer."""
    tree.children[PAUSE] = make_file(pause.read_bytes(), mode=0o755)
    layer = tar_of_tree(tree)
    return convert_layers(conversions, directory, layer), layer


def root_of(container: Container) -> str:
    """Give the container's root, seen from outside."""
    root = Path(f"/proc/{container.pid()}/root")
    # Where nothing is mounted, PID 1 has gone into a directory of it.
    return f"{root}/.." if root.readlink().name == ".bootfs" else f"{root}/."


def in_each_mode(
    image: Converted,
    engine: Engine,
    program: str = f"/{PAUSE.decode()}",
    options: Sequence[str] = (),
    modes: Sequence[str] = MODES,
) -> Iterator[tuple[str, str]]:
    """Boot an image in one mode after the other; yield the mode and where its root is."""
    for mode in modes:
        booted = dataclasses.replace(image, mode=mode)
        container = booted.start(engine, program, options=options)
        yield mode, root_of(container)
        container.remove()
