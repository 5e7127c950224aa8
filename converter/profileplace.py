"""A boot image whose profiles are asked for, and the store that has them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from converter.bootview import BootView, read_boot_image
from converter.images.transports import open_image
from converter.platforms import OWN_OR_ONLY, Platform
from converter.reference import Reference
from converter.spool import Spool
from store.errors import UsageError
from store.format.shownurl import shown
from store.interfaces import Objects
from store.write.served import is_served, open_objects

READ_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A boot image, and the store of its profiles."""

    view: BootView
    store: str

    @property
    def image(self) -> bytes:
        """Raw digest of the chunk index."""
        return self.view.config.chunk_index

    def open_objects(self) -> Objects:
        """Return the store to be read, the first of several mirrors; the caller closes it."""
        return open_objects(self.store.partition("|")[0], READ_LIMIT_S)


def open_profiled(
    reference: Reference, store: str | None, platform: Platform | None = None
) -> Opened:
    """Return a boot image and the URL of its store: ``store``, or what its boot config names.

    Of an image index it is that for ``platform``, or else this machine's, or the only one.

    Raises:
        UsageError: it is no boot image, or names no store.
        NotFound, FormatError, IntegrityError: there is no such image, or it is damaged.

    """
    with Spool() as spool:
        view = read_boot_image(open_image(reference, spool, platform or OWN_OR_ONLY), spool)
    url = os.fsdecode(view.config.blob_store) if store is None else store
    if not url:
        raise UsageError(f"{reference}: the image names no store; give --store URL")
    return Opened(view, url)


def writable_store(url: str) -> str:
    """Return the URL of a store that can be written.

    Raises:
        UsageError: it cannot, or these are several.

    """
    if "|" in url:
        raise UsageError(
            f"{shown(url)}: profiles are written to one store; give one of the mirrors by --store"
        )
    if is_served(url):
        raise UsageError(
            f"{shown(url)}: a web server cannot be written to; give the store that it serves by "
            "--store"
        )
    return url
