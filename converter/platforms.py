"""Platforms of images: which of an image index are meant."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from converter.runtime.contents import ARCHITECTURES
from store.errors import ImageNotFound, UsageError

SYSTEM = "linux"
UNKNOWN = "unknown"
"""The system of entries that are no images, such as attestations."""
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_PLAIN_VARIANTS = {"amd64": "v1", "arm64": "v8"}
"""The variant of what states none; engines see no difference."""
_PART = re.compile(r"[A-Za-z0-9_.-]+\Z")

Stated = Mapping[str, object]
"""``os``, ``architecture`` and perhaps ``variant``, as an image index or a config has them."""


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

    def fits(self, stated: Stated) -> bool:
        """Whether it is the platform of an entry of an index."""
        found = _platform_of(stated)
        return (found.system, found.architecture) == (self.system, self.architecture) and (
            not self.variant or _variant_of(found) == _variant_of(self)
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """An image that an image index lists, or an index below it."""

    way: tuple[str, ...]
    """Digests of the entries that lead to it, its own last."""
    stated: Stated
    """Its platform."""
    is_image: bool = True
    """Whether it is of a kind that an engine could run."""

    @property
    def digest(self) -> str:
        """Digest of its manifest."""
        return self.way[-1]

    @property
    def platform(self) -> Platform:
        """What it is for."""
        return _platform_of(self.stated)

    def __str__(self) -> str:
        """Return its platform."""
        return shown(self.stated)


ALL = Platform("all", "")
"""Every image that an index lists; for `choose_several` alone."""
OWN_OR_ONLY = Platform("this machine's, or the only one", "")
"""For boot images: an index that lists but one image means that."""
KNOWN = tuple(Platform(SYSTEM, name) for name in ARCHITECTURES.values())
"""What there is a runtime layer for."""

Wish = Platform | Listed | None
"""Which image of an index; None means the one for this machine."""


def parse_platform(text: str) -> Platform:
    """Return what ``OS/ARCHITECTURE[/VARIANT]`` means.

    Raises:
        UsageError: it is none.

    """
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(map(_PART.match, parts)):
        raise UsageError(f"--platform {text!r}: give OS/ARCHITECTURE[/VARIANT], linux/amd64")
    return Platform(*parts)


def parse_platforms(text: str) -> tuple[Platform, ...]:
    """Return what one platform means, or several with commas between them, or ``all``.

    Raises:
        UsageError: it is none of these.

    """
    if text == str(ALL):
        return (ALL,)
    try:
        return tuple(map(parse_platform, text.split(",")))
    except UsageError as error:
        raise UsageError(f"{error}; several with commas between them; or all") from None


def platform_of_machine() -> Platform:
    """Return the platform whose images run here."""
    machine = platform.machine()
    return Platform(SYSTEM, _MACHINES.get(machine, machine))


def choose_entry(stated: Sequence[Stated], wanted: Platform | None, where: str) -> int:
    """Return which entry of an index is meant, by the platforms that its entries state.

    Without a wish the one for this machine.  Of those that fit, one of the plain variant is
    taken before others, and else the first.

    Raises:
        ImageNotFound: there is none; the message lists those there are.

    """
    images = [place for place, entry in enumerate(stated) if entry.get("os") != UNKNOWN]
    is_own_or_only = wanted == OWN_OR_ONLY
    wanted = platform_of_machine() if wanted is None or is_own_or_only else wanted
    fitting = [place for place, entry in enumerate(stated) if wanted.fits(entry)]
    if fitting:
        plain = [place for place in fitting if not _variant_of(_platform_of(stated[place]))]
        return (plain or fitting)[0]
    if is_own_or_only and len(images) == 1:
        return images[0]
    raise _none_for(str(wanted), stated, where)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What an index lists and a conversion of all leaves out."""

    what: str
    why: str
    is_image: bool
    """Whether an engine could have run it."""

    def __str__(self) -> str:
        return f"{self.what} left out: {self.why}"


def choose_several(
    listed: Sequence[Listed], wanted: Sequence[Platform], where: str
) -> tuple[list[Listed], list[LeftOut]]:
    """Return which of the images of an index are meant, in its order, and what is not of them.

    `ALL` means those for which there is a runtime layer; of several for one platform the
    first, as engines take it.  Where single platforms are wanted nothing is said of others.

    Raises:
        ImageNotFound: there is none for a platform, or of all none.

    """
    if ALL not in wanted:
        stated = [image.stated for image in listed]
        places = {choose_entry(stated, one, where) for one in wanted}
        return [listed[place] for place in sorted(places)], []
    chosen: dict[Platform, Listed] = {}
    left_out = []
    for image in listed:
        found = _platform_of(image.stated)
        plain = Platform(found.system, found.architecture, _variant_of(found))
        if not image.is_image:
            left_out.append(LeftOut(f"{image} {image.digest}", "it is no image", False))
        elif not found.has_runtime:
            left_out.append(LeftOut(str(image), "there is no runtime layer for it", True))
        elif plain not in chosen:
            chosen[plain] = image
        elif chosen[plain].digest != image.digest:
            why = "an earlier entry of the index is for the same platform"
            left_out.append(LeftOut(f"{image} {image.digest}", why, True))
    if not chosen:
        known = " or ".join(map(str, KNOWN))
        raise _none_for(known, [image.stated for image in listed], where)
    return list(chosen.values()), left_out


def _none_for(wanted: str, stated: Sequence[Stated], where: str) -> ImageNotFound:
    # Of what is no image, such as attestations, nobody can choose one.
    held = ", ".join(shown(entry) for entry in stated if entry.get("os") != UNKNOWN) or "none"
    return ImageNotFound(
        f"{where}: no image for {wanted}; the index has {held}; "
        "choose one of those with --platform, or another image"
    )


def _platform_of(stated: Stated) -> Platform:
    return Platform(*(str(stated.get(key) or "") for key in ("os", "architecture", "variant")))


def _variant_of(one: Platform) -> str:
    """Return a platform's variant, where that says more than the architecture."""
    return "" if one.variant == _PLAIN_VARIANTS.get(one.architecture) else one.variant


def is_same(one: Stated, other: Stated) -> bool:
    """Whether two entries or configs are of one platform."""
    a, b = _platform_of(one), _platform_of(other)
    return (a.system, a.architecture, _variant_of(a)) == (b.system, b.architecture, _variant_of(b))


def shown(stated: Stated) -> str:
    """Return the platform of an entry or config, for a message."""
    return str(_platform_of(stated)) or "one without a platform"


def check_stated(config: Stated, wanted: Wish, where: str) -> None:
    """Return when an image alone is for the platform that was asked for; any, when none was.

    Configs leave the variant out: then it is not known, and any fits.

    Raises:
        ImageNotFound: it is for another.

    """
    if not isinstance(wanted, Platform) or wanted == OWN_OR_ONLY:
        return
    if not config.get("variant"):
        wanted = Platform(wanted.system, wanted.architecture)
    if not wanted.fits(config):
        raise ImageNotFound(
            f"{where}: the image is for {shown(config)}, not for {wanted}; choose another image"
        )
