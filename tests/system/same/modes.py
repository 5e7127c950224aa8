"""The modes that a converted image is compared in, and how `docker run` asks for each."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.engine import BOOT_OPTIONS


@dataclass(frozen=True)
class Mode:
    """One mode of a boot."""

    options: tuple[str, ...]
    """What `docker run` is given that the source image needs not."""
    whole: bool
    """Every case is compared; otherwise only those that are marked as telling much."""


MODES = {
    "erofs": Mode(BOOT_OPTIONS, whole=True),
    "fuse": Mode(BOOT_OPTIONS, whole=False),
    "lease": Mode((), whole=True),
    "eager": Mode((), whole=False),
}
