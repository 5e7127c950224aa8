"""Platforms of images: which of an image index is meant."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from converter.runtime.contents import ARCHITECTURES
from store.errors import ImageNotFound, UsageError

SYSTEM = "linux"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_PART = re.compile(r"[A-Za-z0-9_.-]+\Z")
_UNKNOWN = "unknown"
"""What entries have that are no images, such as attestations."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, as OCI names it."""

    system: str
    architecture: str
    variant: str = ""
    """Empty for any."""

    def __str__(self) -> str:
        """Return it as the user may write it."""
        return "/".join(filter(None, (self.system, self.architecture, self.variant)))

    @property
    def has_runtime(self) -> bool:
        """Whether there is a runtime layer for it."""
        return self.system == SYSTEM and self.architecture in ARCHITECTURES.values()

    def fits(self, stated: Mapping[str, object]) -> bool:
        """Whether it is the ``os``, ``architecture`` and ``variant`` of an index or config."""
        found = stated.get("os"), stated.get("architecture")
        return found == (self.system, self.architecture) and (
            not self.variant or stated.get("variant") == self.variant
        )


ALL = Platform("all", "")
"""Every image that an index lists."""


def parse_platform(text: str) -> Platform:
    """Return what ``OS/ARCHITECTURE[/VARIANT]`` or ``all`` means.

    Raises:
        UsageError: it is neither.

    """
    if text == str(ALL):
        return ALL
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(map(_PART.match, parts)):
        raise UsageError(
            f"--platform {text!r}: give OS/ARCHITECTURE[/VARIANT], linux/amd64, or all"
        )
    return Platform(*parts)


def platform_of_machine() -> Platform:
    """Return the platform whose images run here."""
    machine = platform.machine()
    return Platform(SYSTEM, _MACHINES.get(machine, machine))


def choose_entry(
    stated: Sequence[Mapping[str, object]], wanted: Platform | None, where: str
) -> int:
    """Return which entry of an index is meant, by the platforms that its entries state.

    Without a wish the one for this machine.  `ALL` means the only one, and that none is
    left out for want of a runtime layer.

    Raises:
        ImageNotFound: there is none; the message lists those there are.
        UsageError: all are wanted, and not all can be had.

    """
    held = [_shown(entry) for entry in stated]
    if wanted == ALL:
        return _choose_only(stated, held, where)
    wanted = wanted or platform_of_machine()
    for place, entry in enumerate(stated):
        if wanted.fits(entry):
            return place
    # Of what is no image, such as attestations, nobody can choose one.
    images = [one for one, entry in zip(held, stated, strict=True) if entry.get("os") != _UNKNOWN]
    raise ImageNotFound(
        f"{where}: no image for {wanted}; the index has {', '.join(images) or 'none'}; "
        "choose one of those with --platform, or another image"
    )


def _choose_only(stated: Sequence[Mapping[str, object]], held: list[str], where: str) -> int:
    images = [place for place, entry in enumerate(stated) if entry.get("os") != _UNKNOWN]
    known = [Platform(SYSTEM, name) for name in ARCHITECTURES.values()]
    lacking = [held[place] for place in images if not any(one.fits(stated[place]) for one in known)]
    can = ", ".join(map(str, known))
    if lacking:
        raise UsageError(
            f"{where}: --platform all: there is no runtime layer for {', '.join(lacking)}; "
            f"bootfs converts images for {can}: choose that with --platform"
        )
    if len(images) != 1:
        raise UsageError(
            f"{where}: --platform all: the index has {len(images)} images for {can} "
            f"({', '.join(held) or 'none'}), and one is converted at a time; choose it with "
            "--platform"
        )
    return images[0]


def _shown(entry: Mapping[str, object]) -> str:
    parts = (entry.get("os"), entry.get("architecture"), entry.get("variant"))
    return "/".join(str(part) for part in parts if part) or "one without a platform"


def check_stated(config: Mapping[str, object], wanted: Platform | None, where: str) -> None:
    """Return when an image is for the platform that was asked for; any, when none was.

    Raises:
        ImageNotFound: it is for another.

    """
    if wanted is None or wanted == ALL or wanted.fits(config):
        return
    raise ImageNotFound(
        f"{where}: the image is for {_shown(config)}, not for {wanted}; choose another image"
    )
