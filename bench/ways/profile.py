"""The boot image with a profile: what a traced run touched is fetched ahead of the workload."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.conversion import bootfs, convert
from bench.far import Near
from bench.images import PREFIX, Image
from bench.ready import Run
from bench.ways import Unavailable
from bench.ways.engine import Lazy, boot_options


class Profile(Lazy):
    """`bootfs trace` has run the image's command once, beforehand; the runtime layer is there."""

    key = "profile"
    label = "profile, runtime there"

    @classmethod
    def check(cls) -> None:
        """Look whether this release can trace."""
        try:
            bootfs("trace", "--help")
        except RuntimeError:
            raise Unavailable("bootfs has no command `trace`") from None

    def add(self, image: Image) -> None:
        """Convert the image, and trace its command."""
        # A store of its own: a profile is found by the boot image, which is the same in all ways.
        boots = self.place.boots
        boots.add(image)
        self._store.mkdir(exist_ok=True)
        boot = f"{PREFIX}/{self._name(image)}:latest"
        convert(image.reference, boot, self._store)
        bootfs("trace", boot, "--store", str(self._store), "--", *image.command)
        boots.push(boot, self._name(image))

    def kept(self, image: Image) -> Iterable[Path]:
        """Return the store, and the files of the boot image."""
        return [self._store, *self.place.far.layer_files(self._name(image))]

    def start(self, image: Image, near: Near) -> Run:
        """Pull the boot image and run it."""
        options = boot_options(near.web, directory=self.key)
        return self._start(f"{near.registry}/{self._name(image)}", near, options)

    @property
    def _store(self) -> Path:
        return self.place.far.web / self.key

    @staticmethod
    def _name(image: Image) -> str:
        return f"{image.name}-profile"
