"""Stores that are only read, and cannot say what they hold: those behind a web server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

from store.errors import (
    AccessDenied,
    BootfsError,
    ImageNotFound,
    PackNotFound,
    RemoteProtocolError,
    SizeMismatch,
    UsageError,
)
from store.format.names import (
    STORE_MARK,
    STORE_MARK_TEXT,
    hot_pack_name,
    manifest_name,
    profiles_name,
)
from store.format.shownurl import shown
from store.interfaces import Objects, Source
from store.write.backends import open_backend
from store.write.hostsource import open_host_source
from store.write.profilestore import read_profiles
from store.write.roots import needed_names, read_packs

BEYOND = 1 << 62
"""Offset behind the end of any object."""


def is_served(url: str) -> bool:
    """Whether the store at ``url`` lies behind a web server."""
    return url.partition("://")[0].lower() in ("http", "https")


class SourceObjects:
    """The whole objects of the store that a source reads, which it closes."""

    def __init__(self, source: Source) -> None:
        self.location = source.location
        self._source = source

    def fetch(self, name: str, offset: int, size: int) -> bytes:
        """Return bytes of an object; see `Source`."""
        return self._source.fetch(name, offset, size)

    def size(self, name: str) -> int:
        """Return the object's size, which the server says of a range that begins behind it.

        Raises:
            PackNotFound, AccessDenied, RemoteError: as `Source.fetch`.

        """
        try:
            self._source.fetch(name, BEYOND, 1)
        except SizeMismatch as error:
            if error.actual > 0:
                return error.actual
        raise RemoteProtocolError(f"{self.location}: the server does not say how large {name} is")

    def close(self) -> None:
        """Let go of what is open."""
        self._source.close()


def fetch_document(source: Source, name: str, limit: int) -> bytes:
    """Return a whole small object of a source, which may know no sizes.

    Raises:
        SizeMismatch: it is larger than ``limit``.
        PackNotFound, AccessDenied, RemoteError: as `Source.fetch`.

    """
    found = bytearray()
    stream: Callable[[str, int, Callable[[memoryview], None]], int] | None
    stream = getattr(source, "stream", None)
    if stream is not None:
        stream(name, limit, found.extend)
        return bytes(found)
    objects = cast("Objects", source)
    size = objects.size(name)
    if size > limit:
        raise SizeMismatch(f"{source.location}/{name}", limit, size)
    return objects.fetch(name, 0, size)


def open_objects(url: str, read_limit_s: float) -> Objects:
    """Return read access to the whole objects of the store at ``url``; the caller closes it.

    Raises:
        UsageError: there is no store.
        Unreachable, AccessDenied: it cannot be read.

    """
    if is_served(url):
        objects: Objects = SourceObjects(open_host_source(url, read_limit_s))
    else:
        objects = open_backend(url)
    try:
        if objects.fetch(STORE_MARK, 0, len(STORE_MARK_TEXT)) != STORE_MARK_TEXT:
            raise UsageError(f"{shown(url)}: a store of another version; give another one")
    except BaseException:
        objects.close()
        raise
    return objects


class ImagesOf:
    """What some images need of a store, as a store that holds nothing else and can be listed."""

    def __init__(self, objects: Objects, images: Sequence[bytes]) -> None:
        """Take ``objects``, and close them in the end; ``images`` are chunk index digests."""
        self.location = objects.location
        self._objects = objects
        self._images = images

    def check(self) -> None:
        """Return when the store has each of the images.

        Raises:
            ImageNotFound: it lacks one.
            AccessDenied, RemoteError: it cannot be asked.

        """
        for image in self._images if self.has(STORE_MARK) else ():
            if not self.has(manifest_name(image)):
                raise ImageNotFound(
                    f"{self.location}: no image blake3:{image.hex()} in this store; "
                    "check its address, or convert the image into it"
                )

    def fetch(self, name: str, offset: int, size: int) -> bytes:
        """Return bytes of an object; see `Source`."""
        return self._objects.fetch(name, offset, size)

    def size(self, name: str) -> int:
        """Return the object's size; see `Backend`."""
        return self._objects.size(name)

    def has(self, name: str) -> bool:
        """Whether the object exists."""
        try:
            self._objects.size(name)
        except PackNotFound:
            return False
        return True

    def close(self) -> None:
        """Let go of what is open."""
        self._objects.close()

    def _used_by_profiles(self, image: bytes) -> set[str]:
        """Return the names of an image's profiles, where it has some, and of their hot packs."""
        try:
            if not self.has(profiles_name(image)):
                return set()
            profiles = read_profiles(self, image)
        except AccessDenied:
            # Some servers say so of what they do not have, and most images have no profiles.
            return set()
        except BootfsError:
            # Who looks at them finds the same, and says it.
            profiles = []
        names = {hot_pack_name(one.hot_pack) for one in profiles if one.hot_pack_size}
        return names | {profiles_name(image)}

    def iter_names(self, prefix: str) -> Iterator[str]:
        """Yield the names below ``prefix`` that the images need, sorted; some may be missing."""
        names: set[str] = set()
        for image in self._images:
            try:
                packs = read_packs(self, image)
            except BootfsError:
                # Who looks at manifest and chunk index finds the same, and says it.
                packs = []
            names |= needed_names(image, packs) | self._used_by_profiles(image)
        yield from sorted(name for name in names if name.startswith(prefix))
