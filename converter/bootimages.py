"""Boot images by their reference: the one that is meant, or all that an image index lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from converter.bootview import BootView, no_boot_image, read_boot_image
from converter.images.skopeodir import is_skopeo_directory
from converter.images.transports import list_images, open_image
from converter.images.view import ImageView
from converter.platforms import OWN_OR_ONLY, Platform
from converter.reference import ROOT_ALONE, Reference, parse_reference
from converter.spool import Spool
from store.errors import NotFound, UsageError


def open_boot_images(
    names: Sequence[str],
    spool: Spool,
    platform: Platform | None = None,
    *,
    measures: bool = False,
) -> list[BootView]:
    """Return the boot images that references name; files stay open as long as ``spool``.

    Of an image index that for ``platform``, or without one that for this machine, or the only
    one.  None is opened, which may copy all of it, where one of them cannot be a boot image.
    ``measures`` is as for `read_boot_image`.

    Raises:
        UsageError: one is no reference, or no boot image.
        NotFound, AccessDenied, RemoteError: as `open_image`.
        FormatError, IntegrityError: one is damaged.

    """
    references = [parse_reference(name) for name in names]
    for reference in references:
        _refuse_root(reference)
    wish = platform or OWN_OR_ONLY
    return [
        read_boot_image(open_image(reference, spool, wish), spool, measures=measures)
        for reference in references
    ]


def iter_boot_images(reference: Reference, spool: Spool) -> Iterator[tuple[ImageView, BootView]]:
    """Yield the boot image that ``reference`` names, or all that are in the image index.

    Images of an index that are no boot images are left out.

    Raises:
        UsageError: there is no boot image.
        BootfsError: as `open_image` and `read_boot_image`.

    """
    _refuse_root(reference)
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


def _refuse_root(reference: Reference) -> None:
    """Return when a reference may be that of a boot image, by its transport.

    Raises:
        UsageError: it is a root file system alone.
        NotFound: it would be, and there is nothing.

    """
    path = Path(reference.name)
    if reference.transport not in ROOT_ALONE or is_skopeo_directory(path):
        return
    if not path.exists():
        raise NotFound(f"{reference}: {path} is missing")
    raise no_boot_image(str(reference))
