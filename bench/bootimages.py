"""Boot images of the benchmark's images: converted once into one store, and pushed."""

from __future__ import annotations

import io
import tarfile

from bench.conversion import Conversion, convert
from bench.far import Far, run_docker
from bench.images import PREFIX, Image

STORE = "bootfs"
"""The directory of the web server that holds the store."""
SEED = "seed-boot"
"""A boot image of an empty file: pulled, it brings the runtime layer and nothing else."""


class BootImages:
    """Converts images into a store at the far end, each once, and pushes their boot images."""

    def __init__(self, far: Far) -> None:
        self._far = far
        self.store = far.web / STORE
        """The store: a directory that the far end's web server serves."""
        self.conversions: dict[str, Conversion] = {}

    def add(self, image: Image) -> str:
        """Convert the image unless that is done, and return its name in the registry."""
        if not self.conversions:
            self.store.mkdir()
            self._add_seed()
        name = f"{image.name}-boot"
        if image.name not in self.conversions:
            boot = f"{PREFIX}/{name}:latest"
            self.conversions[image.name] = convert(image.reference, boot, self.store)
            self.push(boot, name)
        return name

    def push(self, boot: str, name: str) -> None:
        """Push a boot image of the machine's engine as NAME, and remove it from that engine."""
        self._far.push(boot, name)
        run_docker("rmi", boot)

    def _add_seed(self) -> None:
        source, boot = import_seed(), f"{PREFIX}/{SEED}:latest"
        self.conversions["seed"] = convert(source, boot, self.store)
        self.push(boot, SEED)
        run_docker("rmi", source)


def import_seed() -> str:
    """Make an image of one empty file on the machine's engine, and return its reference."""
    reference = f"{PREFIX}/seed:latest"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("seed"))
    run_docker("import", "-", reference, stdin=archive.getvalue())
    return reference
