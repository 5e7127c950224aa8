"""The boot image, lazy or whole: forced to be the one or the other, and as it decides itself."""

from __future__ import annotations

from collections.abc import Iterable

from bench.far import Near
from bench.images import Image
from bench.ready import Run
from bench.ways.engine import Lazy, boot_options


class NeverWhole(Lazy):
    """Only what is read is fetched, and what lies near it."""

    key = "never-whole"
    label = "lazy, forced"
    whole = "off"

    def start(self, image: Image, near: Near) -> Run:
        """Pull the boot image and run it."""
        reference = f"{near.registry}/{self.place.boots.add(image)}"
        return self._start(reference, near, self._options(near))

    def _options(self, near: Near) -> Iterable[str]:
        return [*boot_options(near.web), "-e", f"BOOTFS_WHOLE={self.whole}"]


class AlwaysWhole(NeverWhole):
    """All of the image is fetched from the very start, in the order of its packs."""

    key = "always-whole"
    label = "whole, forced"
    whole = "on"
