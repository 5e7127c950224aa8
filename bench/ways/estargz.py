"""eStargz, plain and traced: containerd and its snapshotter, which fetches lazily through FUSE.

On a cold node both daemons run and hold nothing. Timed are `ctr-remote images rpull`, which fetches
manifest, config and the layers' tables of contents and mounts the layers, and `ctr-remote run`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.far import Near
from bench.images import Image
from bench.ready import Run
from bench.snapshotter import Snapshotter, build_snapshotter, missing
from bench.ways import Unavailable, Way


class Estargz(Way):
    """Layers as eStargz, each file in the order of its layer."""

    key = "estargz"
    label = "eStargz"
    client = "ctr-remote"
    conversion: tuple[str, ...] = ("convert", "--estargz", "--oci")

    @classmethod
    def check(cls) -> None:
        """Look for what the snapshotter is built of, and what it takes to run it."""
        if lacking := missing():
            raise Unavailable(f"missing: {', '.join(lacking)}; see scripts/setup bench")

    def add(self, image: Image) -> None:
        """Convert the image by a containerd that is there for this, and push it."""
        registry = self.place.far.registry.host_port
        source, converted = f"{registry}/{image.name}:latest", self._reference(registry, image)
        self.place.far.push(image.reference, image.name)
        with self._node("converting", registry) as node:
            node.images("pull", "--plain-http", source)
            node.images(*self.conversion, source, converted)
            node.images("push", "--plain-http", converted)

    def kept(self, image: Image) -> Iterable[Path]:
        """Return the files of the converted layers."""
        return self.place.far.layer_files(f"{image.name}-{self.key}")

    @contextmanager
    def cold(self, image: Image, near: Near) -> Iterator[None]:
        """Start containerd and the snapshotter, both empty."""
        with self._node("node", near.registry) as self._cold:
            yield

    def start(self, image: Image, near: Near) -> Run:
        """Pull lazily, and run."""
        reference = self._reference(near.registry, image)
        self._cold.images("rpull", "--plain-http", reference)
        return self._cold.run_until_ready(reference, near.mark)

    def _reference(self, registry: str, image: Image) -> str:
        return f"{registry}/{image.name}-{self.key}:latest"

    def _node(self, name: str, registry: str) -> Snapshotter:
        program = self.place.home / "snapshotter"
        if not program.exists():
            build_snapshotter(program, self.place.home / "compiled")
        return Snapshotter(program, self.home / name, registry)


class Traced(Estargz):
    """The image's command was run beforehand: what it read lies first, and is fetched at once."""

    key = "traced"
    label = "eStargz, traced"
    # 10 s is the optimiser's own default, for a workload that does not end.
    conversion = ("optimize", "--oci", "--net-host", "--period", "10")
