"""Ways that an unmodified engine goes: the source image, and its boot image in each mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.bootimages import SEED, STORE
from bench.far import Near
from bench.images import Image
from bench.ready import Run
from bench.ways import Way
from tests.support.engine import BOOT_OPTIONS


class Docker(Way):
    """The source image is pulled whole and run."""

    key = "docker"
    label = "docker"

    def add(self, image: Image) -> None:
        """Push the source image."""
        self.place.far.push(image.reference, image.name)

    def kept(self, image: Image) -> Iterable[Path]:
        """Return the files of its layers."""
        return self.place.far.layer_files(image.name)

    @contextmanager
    def cold(self, image: Image, near: Near) -> Iterator[None]:
        """Remove every image from the node."""
        self.place.node.forget_images()
        yield

    def start(self, image: Image, near: Near) -> Run:
        """Pull the image and run it."""
        return self._start(f"{near.registry}/{image.name}", near)

    def _start(self, reference: str, near: Near, options: Iterable[str] = ()) -> Run:
        node = self.place.node
        node.docker("pull", "-q", reference)
        return node.run_until_ready(reference, options=[*options], on_ready=near.mark)


def boot_options(web: str, mode: str = "", directory: str = STORE) -> list[str]:
    """Return the options of `docker run` for a mode, and a store below the URL `web`."""
    options = ["-e", f"BLOB_STORE={web}{directory}/"]
    if mode:
        options += ["-e", f"BOOTFS_MODE={mode}"]
    return options if mode in {"lease", "eager"} else [*options, *BOOT_OPTIONS]


class Bare(Docker):
    """The boot image is pulled and run; nothing of ours is on the node before."""

    key = "bare"
    label = "bootfs"
    mode = ""

    def add(self, image: Image) -> None:
        """Convert the image and push the boot image."""
        self.place.boots.add(image)

    def kept(self, image: Image) -> Iterable[Path]:
        """Return the store, and the files of the boot image."""
        name = self.place.boots.add(image)
        return [self.place.boots.store, *self.place.far.layer_files(name)]

    def start(self, image: Image, near: Near) -> Run:
        """Pull the boot image and run it."""
        reference = f"{near.registry}/{self.place.boots.add(image)}"
        return self._start(reference, near, boot_options(near.web, self.mode))


class Lazy(Bare):
    """The shared runtime layer is on the node already, as a peer's snapshotter is."""

    key = "lazy"
    label = "bootfs, runtime there"

    @contextmanager
    def cold(self, image: Image, near: Near) -> Iterator[None]:
        """Remove every image from the node, and pull the runtime layer."""
        with super().cold(image, near):
            self.place.node.docker("pull", "-q", f"{self.place.far.registry.host_port}/{SEED}")
            yield


class Lease(Lazy):
    """`docker run` gives no privilege, and files are fetched when they are opened."""

    key = "lease"
    label = "lease, runtime there"
    mode = "lease"


class Eager(Lazy):
    """`docker run` gives no privilege, and everything is fetched before the workload starts."""

    key = "eager"
    label = "eager, runtime there"
    mode = "eager"
