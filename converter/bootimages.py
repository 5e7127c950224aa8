"""Boot images by their reference: the one that is meant, or all that an image index lists."""

from __future__ import annotations

from collections.abc import Iterator

from converter.bootview import BootView, read_boot_image
from converter.images.transports import list_images, open_image
from converter.images.view import ImageView
from converter.platforms import OWN_OR_ONLY, Platform
from converter.reference import Reference
from converter.spool import Spool
from store.errors import UsageError


def open_boot_image(
    reference: Reference, spool: Spool, platform: Platform | None = None
) -> BootView:
    """Return a boot image; of an image index that for ``platform``.

    Without a platform that for this machine, or the only one.

    Raises:
        UsageError: it is no boot image.
        BootfsError: as `open_image` and `read_boot_image`.

    """
    return read_boot_image(open_image(reference, spool, platform or OWN_OR_ONLY), spool)


def iter_boot_images(reference: Reference, spool: Spool) -> Iterator[tuple[ImageView, BootView]]:
    """Yield the boot image that ``reference`` names, or all that are in the image index.

    Images of an index that are no boot images are left out.

    Raises:
        UsageError: there is no boot image.
        BootfsError: as `open_image` and `read_boot_image`.

    """
    images = [one for one in list_images(reference, spool) or [] if one.is_image]
    if not images:
        image = open_image(reference, spool, OWN_OR_ONLY)
        yield image, read_boot_image(image, spool)
        return
    refusal: UsageError | None = None
    is_empty = True
    for listed in images:
        try:
            image = open_image(reference, spool, listed)
            view = read_boot_image(image, spool)
        except UsageError as error:
            refusal = error
            continue
        is_empty = False
        yield image, view
    if refusal is not None and is_empty:
        raise refusal
